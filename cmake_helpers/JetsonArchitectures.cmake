# Jetson board -> CUDA architecture, as far as the toolkit at hand can compile for it (issue 4).
#
#   jetson_architectures(<result> [BOARDS <name>...] [NVCC <path>] [DEVICE_TREE <folder>...])
#
# Sets <result> to a list for CMAKE_CUDA_ARCHITECTURES: `87` on an Orin. Call it before CUDA is
# enabled:
#
#   jetson_architectures(CMAKE_CUDA_ARCHITECTURES BOARDS orin-nano agx-thor)
#   enable_language(CUDA)
#
# BOARDS       names as NVIDIA writes them, in any case: nano, tx1, tx2, agx-xavier, xavier-nx,
#              agx-orin, orin-nx, orin-nano, agx-thor. Without: the board that this runs on, from
#              its device tree.
# NVCC         the compiler that is asked what it can compile for (`--list-gpu-arch`). Without:
#              CMAKE_CUDA_COMPILER, CUDACXX, CUDAToolkit_ROOT, the PATH, /usr/local/cuda.
# DEVICE_TREE  where `model` and `compatible` lie.

# The first row with a word of the name decides, so that "Orin Nano" is an Orin. The tegra word
# stands in `compatible` on carrier boards whose model is the maker's own. Of several numbers, the
# toolkit's list chooses: CUDA 13 calls Thor 110, CUDA 12 called it 101.
set(_jetson_chips thor orin xavier tx2 tx1)
set(_jetson_words_thor thor t5000 t4000 tegra264)
set(_jetson_words_orin orin tegra234)
set(_jetson_words_xavier xavier tegra194)
set(_jetson_words_tx2 tx2 tx2i quill tegra186)
set(_jetson_words_tx1 tx1 nano tegra210)
set(_jetson_numbers_thor 110 101)
set(_jetson_numbers_orin 87)
set(_jetson_numbers_xavier 72)
set(_jetson_numbers_tx2 62)
set(_jetson_numbers_tx1 53)
set(_jetson_names "nano, tx1, tx2, agx-xavier, xavier-nx, agx-orin, orin-nx, orin-nano, agx-thor")

# The architecture numbers that a board's name or device tree stands for; "" where it is unknown.
function(_jetson_numbers out text)
  set(${out} "" PARENT_SCOPE)
  string(TOLOWER "${text}" text)
  string(REGEX REPLACE "[^a-z0-9]+" ";" words "${text}")
  foreach(chip IN LISTS _jetson_chips)
    foreach(word IN LISTS _jetson_words_${chip})
      if(word IN_LIST words)
        set(${out} ${_jetson_numbers_${chip}} PARENT_SCOPE)
        return()
      endif()
    endforeach()
  endforeach()
endfunction()

# What the device tree says of this machine, as text; "" without one.
function(_jetson_device_tree out)
  set(text "")
  foreach(folder IN LISTS ARGN)
    foreach(file model compatible)
      if(EXISTS "${folder}/${file}")
        file(STRINGS "${folder}/${file}" lines) # ends a string at each NUL, as the device tree does
        list(APPEND text ${lines})
      endif()
    endforeach()
    if(text)
      break()
    endif()
  endforeach()
  list(JOIN text ", " text)
  set(${out} "${text}" PARENT_SCOPE)
endfunction()

function(_jetson_find_nvcc out)
  foreach(given IN ITEMS "${CMAKE_CUDA_COMPILER}" "$ENV{CUDACXX}")
    if(given)
      set(${out} "${given}" PARENT_SCOPE)
      return()
    endif()
  endforeach()
  find_program(nvcc nvcc NO_CACHE HINTS "${CUDAToolkit_ROOT}" ENV CUDAToolkit_ROOT ENV CUDA_PATH
               PATHS /usr/local/cuda PATH_SUFFIXES bin)
  if(NOT nvcc)
    message(FATAL_ERROR "jetson_architectures: there is no nvcc to ask what it can compile for. \
Install the CUDA toolkit, or name it: NVCC /usr/local/cuda/bin/nvcc")
  endif()
  set(${out} "${nvcc}" PARENT_SCOPE)
endfunction()

# The architectures that a toolkit can compile for, as numbers.
function(_jetson_toolkit out nvcc)
  execute_process(COMMAND "${nvcc}" --list-gpu-arch OUTPUT_VARIABLE listed ERROR_VARIABLE error
                  RESULT_VARIABLE result)
  string(REGEX MATCHALL "compute_[0-9]+" listed "${listed}")
  if(NOT result STREQUAL "0" OR NOT listed)
    string(STRIP "${error}" error)
    message(FATAL_ERROR "jetson_architectures: `${nvcc} --list-gpu-arch` lists nothing \
(${result}: ${error}). It must be the nvcc of CUDA 11.1 or newer; with an older one set \
CMAKE_CUDA_ARCHITECTURES yourself")
  endif()
  list(TRANSFORM listed REPLACE "compute_" "")
  set(${out} ${listed} PARENT_SCOPE)
endfunction()

function(jetson_architectures result)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "NVCC" "BOARDS;DEVICE_TREE")
  if(arg_UNPARSED_ARGUMENTS OR arg_KEYWORDS_MISSING_VALUES)
    message(FATAL_ERROR "jetson_architectures: cannot read \
\"${arg_UNPARSED_ARGUMENTS}${arg_KEYWORDS_MISSING_VALUES}\"; expected <result> \
[BOARDS <name>...] [NVCC <path>] [DEVICE_TREE <folder>...]")
  endif()
  if(NOT arg_BOARDS)
    if(NOT arg_DEVICE_TREE)
      set(arg_DEVICE_TREE /proc/device-tree /sys/firmware/devicetree/base)
    endif()
    _jetson_device_tree(arg_BOARDS ${arg_DEVICE_TREE})
    if(NOT arg_BOARDS)
      message(FATAL_ERROR "jetson_architectures: this machine has no device tree, so it is no \
Jetson (or a container hides it). Name the board: BOARDS with one of ${_jetson_names}; for the GPU \
of a desktop set CMAKE_CUDA_ARCHITECTURES to native")
    endif()
  endif()
  if(NOT arg_NVCC)
    _jetson_find_nvcc(arg_NVCC)
  endif()
  _jetson_toolkit(compilable "${arg_NVCC}")
  set(chosen "")
  foreach(board IN LISTS arg_BOARDS)
    _jetson_numbers(numbers "${board}")
    if(NOT numbers)
      message(FATAL_ERROR "jetson_architectures: \"${board}\" is no Jetson that is known; expected \
one of ${_jetson_names}")
    endif()
    set(number "")
    foreach(candidate IN LISTS numbers)
      if(NOT number AND candidate IN_LIST compilable)
        set(number ${candidate})
      endif()
    endforeach()
    if(NOT number)
      list(JOIN numbers " or " numbers)
      list(JOIN compilable ", " compilable)
      message(FATAL_ERROR "jetson_architectures: ${arg_NVCC} cannot compile for ${board} \
(${numbers}), only for ${compilable}. Use the CUDA toolkit of that board's JetPack")
    endif()
    list(APPEND chosen ${number})
  endforeach()
  list(REMOVE_DUPLICATES chosen)
  set(${result} ${chosen} PARENT_SCOPE)
endfunction()
