# Finds NVIDIA TensorRT or TensorRT for RTX, and reads its version from the header (issue 4).
#
#   find_package(TensorRT [10.3...<12] [EXACT] [REQUIRED]
#                [COMPONENTS OnnxParser Plugin] [OPTIONAL_COMPONENTS ...])
#
# Looks first in TensorRT_ROOT (variable or environment), then where CMake looks for everything.
# Layouts: JetPack and Debian (/usr/include/<triplet>, /usr/lib/<triplet>), the unpacked tar
# (include, lib or targets/<triplet>/lib) and the unpacked SDK of TensorRT for RTX.
# When cross-compiling, CMAKE_SYSROOT and CMAKE_FIND_ROOT_PATH hold as for any package.
#
# Input:
#   TensorRT_FLAVOUR         tensorrt | tensorrt-rtx; unset: whichever is there, tensorrt first
# Cache, for a place that is found by no rule:
#   TensorRT_LIBRARY, TensorRT_INCLUDE_DIR          libnvinfer.so; the folder of NvInfer.h
#   TensorRT_RTX_LIBRARY, TensorRT_RTX_INCLUDE_DIR  the same for libtensorrt_rtx.so
# Output:
#   TensorRT_FOUND, TensorRT_FOUND_FLAVOUR
#   TensorRT_VERSION, TensorRT_VERSION_MAJOR, _MINOR, _PATCH
#   TensorRT_<component>_FOUND
# Targets, named alike for both flavours (link CUDA::cudart beside them: the headers include it):
#   TensorRT::nvinfer
#   TensorRT::nvonnxparser      where the parser is there (component OnnxParser)
#   TensorRT::nvinfer_plugin    where the plugins are there (component Plugin; not in RTX)

include(FindPackageHandleStandardArgs)

set(_TensorRT_flavours tensorrt tensorrt-rtx)
set(_TensorRT_prefix_tensorrt TensorRT)
set(_TensorRT_prefix_tensorrt-rtx TensorRT_RTX)
set(_TensorRT_main_tensorrt nvinfer)
set(_TensorRT_main_tensorrt-rtx tensorrt_rtx)
set(_TensorRT_OnnxParser_tensorrt nvonnxparser)
set(_TensorRT_OnnxParser_tensorrt-rtx tensorrt_onnxparser_rtx)
set(_TensorRT_Plugin_tensorrt nvinfer_plugin)
set(_TensorRT_Plugin_tensorrt-rtx "") # not part of it
set(_TensorRT_components OnnxParser Plugin)
set(_TensorRT_header_OnnxParser NvOnnxParser.h)
set(_TensorRT_header_Plugin NvInferPlugin.h)
set(_TensorRT_target_OnnxParser nvonnxparser)
set(_TensorRT_target_Plugin nvinfer_plugin)

# Without a language, or without multiarch (Yocto), CMake knows no triplet.
set(_TensorRT_triplet "${CMAKE_LIBRARY_ARCHITECTURE}")
if(NOT _TensorRT_triplet)
  set(_TensorRT_triplet "${CMAKE_SYSTEM_PROCESSOR}-linux-gnu")
endif()
set(_TensorRT_lib_suffixes
    "lib/${_TensorRT_triplet}" lib lib64 "targets/${_TensorRT_triplet}/lib")

# Fills <prefix>_LIBRARY and <prefix>_INCLUDE_DIR of one flavour; ROOT keeps to the given folders.
function(_tensorrt_search flavour)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" ROOT)
  set(prefix ${_TensorRT_prefix_${flavour}})
  set(only_root "")
  if(arg_ROOT)
    set(only_root HINTS ${arg_ROOT} NO_DEFAULT_PATH)
  endif()
  find_library(${prefix}_LIBRARY NAMES ${_TensorRT_main_${flavour}} ${only_root}
               PATH_SUFFIXES ${_TensorRT_lib_suffixes})
  mark_as_advanced(${prefix}_LIBRARY ${prefix}_INCLUDE_DIR)
  if(NOT ${prefix}_LIBRARY)
    return()
  endif()
  # Both flavours call their header NvInfer.h: the one that lies by the library comes first.
  get_filename_component(lib "${${prefix}_LIBRARY}" DIRECTORY)
  find_path(${prefix}_INCLUDE_DIR NAMES NvInfer.h NO_DEFAULT_PATH
            HINTS "${lib}/../include" "${lib}/../../include/${_TensorRT_triplet}"
                  "${lib}/../../include" "${lib}/../../../include")
  find_path(${prefix}_INCLUDE_DIR NAMES NvInfer.h ${only_root}
            PATH_SUFFIXES include "include/${_TensorRT_triplet}")
endfunction()

# Follows `#define <name> <value>` to a number: newer headers put further macros between. A value
# that belongs to the other flavour (`<foreign>` at its end) is passed over.
function(_tensorrt_number out text name foreign depth)
  set(${out} "" PARENT_SCOPE)
  if(depth GREATER 8) # macros that name each other
    return()
  endif()
  math(EXPR depth "${depth} + 1")
  string(REGEX MATCHALL "\n[ \t]*#[ \t]*define[ \t]+${name}[ \t]+\\(?[A-Za-z0-9_]+" lines "${text}")
  foreach(line IN LISTS lines)
    string(REGEX MATCH "[A-Za-z0-9_]+$" value "${line}")
    if(value MATCHES "${foreign}$")
      continue()
    elseif(NOT value MATCHES "^[0-9]+$")
      _tensorrt_number(value "${text}" "${value}" "${foreign}" ${depth})
    endif()
    if(NOT value STREQUAL "")
      set(${out} "${value}" PARENT_SCOPE)
      return()
    endif()
  endforeach()
endfunction()

# Sets <out> to major.minor.patch[.build] and <problem> to "", or <out> to "" and <problem>.
function(_tensorrt_version out problem flavour include_dir)
  set(${out} "" PARENT_SCOPE)
  set(header "${include_dir}/NvInferVersion.h")
  if(NOT EXISTS "${header}")
    set(${problem} "${include_dir} holds NvInfer.h but no NvInferVersion.h: install the headers of \
one TensorRT 8 or newer" PARENT_SCOPE)
    return()
  endif()
  file(READ "${header}" text)
  string(PREPEND text "\n")
  string(REGEX MATCH "define[ \t]+TRT_MAJOR_RTX[ \t]" rtx "${text}")
  string(REGEX MATCH "define[ \t]+TRT_MAJOR_ENTERPRISE[ \t]" enterprise "${text}")
  if(flavour STREQUAL "tensorrt-rtx" AND NOT rtx)
    set(${problem} "${header} is not of TensorRT for RTX, and the library is: set \
TensorRT_RTX_INCLUDE_DIR to the include folder of its SDK" PARENT_SCOPE)
    return()
  elseif(flavour STREQUAL "tensorrt" AND rtx AND NOT enterprise)
    set(${problem} "${header} is of TensorRT for RTX, and libnvinfer is not: set \
TensorRT_INCLUDE_DIR to TensorRT's headers, or TensorRT_FLAVOUR to tensorrt-rtx" PARENT_SCOPE)
    return()
  endif()
  set(version "")
  foreach(part MAJOR MINOR PATCH BUILD)
    if(flavour STREQUAL "tensorrt-rtx")
      _tensorrt_number(number "${text}" TRT_${part}_RTX _ENTERPRISE 0)
    else()
      _tensorrt_number(number "${text}" NV_TENSORRT_${part} _RTX 0)
    endif()
    if(number STREQUAL "" AND NOT part STREQUAL "BUILD")
      set(${problem} "${header} states no ${part} version in a form that is known: set \
TensorRT_INCLUDE_DIR to other headers, or report this header" PARENT_SCOPE)
      return()
    elseif(NOT number STREQUAL "")
      list(APPEND version ${number})
    endif()
  endforeach()
  list(JOIN version "." version)
  set(${out} "${version}" PARENT_SCOPE)
  set(${problem} "" PARENT_SCOPE)
endfunction()

# Why nothing was found, as far as it can be told: run-time packages have no file to link with.
function(_tensorrt_missing out)
  find_library(runtime NO_CACHE PATH_SUFFIXES ${_TensorRT_lib_suffixes} HINTS ${_TensorRT_root}
               NAMES libnvinfer.so.11 libnvinfer.so.10 libnvinfer.so.8 libtensorrt_rtx.so.1)
  foreach(flavour IN LISTS _TensorRT_wanted)
    set(library "${${_TensorRT_prefix_${flavour}}_LIBRARY}")
    if(library)
      set(${out} "${library} is there, NvInfer.h is not: install libnvinfer-headers-dev, or set \
${_TensorRT_prefix_${flavour}}_INCLUDE_DIR" PARENT_SCOPE)
      return()
    endif()
  endforeach()
  if(runtime)
    set(${out} "${runtime} is there, but not what programs are linked with: install \
libnvinfer-dev, or set TensorRT_ROOT to an unpacked TensorRT" PARENT_SCOPE)
  else()
    list(JOIN _TensorRT_wanted " or " wanted)
    set(${out} "no ${wanted} was found: install libnvinfer-dev (JetPack, Debian), or set \
TensorRT_ROOT to an unpacked TensorRT" PARENT_SCOPE)
  endif()
endfunction()

# The target of one library; of a second find_package, nothing.
function(_tensorrt_target name library)
  if(NOT TARGET TensorRT::${name})
    add_library(TensorRT::${name} UNKNOWN IMPORTED)
    set_target_properties(TensorRT::${name} PROPERTIES IMPORTED_LOCATION "${library}"
                          INTERFACE_INCLUDE_DIRECTORIES "${_TensorRT_include_dir}")
    if(NOT name STREQUAL "nvinfer")
      target_link_libraries(TensorRT::${name} INTERFACE TensorRT::nvinfer)
    endif()
  endif()
endfunction()

set(_TensorRT_wanted ${_TensorRT_flavours})
if(TensorRT_FLAVOUR)
  if(NOT TensorRT_FLAVOUR IN_LIST _TensorRT_flavours)
    message(FATAL_ERROR "TensorRT_FLAVOUR is ${TensorRT_FLAVOUR}, expected tensorrt or \
tensorrt-rtx")
  endif()
  set(_TensorRT_wanted ${TensorRT_FLAVOUR})
endif()

# A flavour in TensorRT_ROOT wins over another one in the system.
set(_TensorRT_root ${TensorRT_ROOT} $ENV{TensorRT_ROOT})
set(_TensorRT_rounds anywhere)
if(_TensorRT_root)
  set(_TensorRT_rounds root anywhere)
endif()
set(TensorRT_FOUND_FLAVOUR "")
set(TensorRT_VERSION "")
set(_TensorRT_problem "")
foreach(_TensorRT_round IN LISTS _TensorRT_rounds)
  foreach(_TensorRT_flavour IN LISTS _TensorRT_wanted)
    if(TensorRT_FOUND_FLAVOUR)
      break()
    endif()
    set(_TensorRT_prefix ${_TensorRT_prefix_${_TensorRT_flavour}})
    if(_TensorRT_round STREQUAL "root")
      _tensorrt_search(${_TensorRT_flavour} ROOT ${_TensorRT_root})
    else()
      _tensorrt_search(${_TensorRT_flavour})
    endif()
    if(NOT ${_TensorRT_prefix}_LIBRARY OR NOT ${_TensorRT_prefix}_INCLUDE_DIR)
      continue()
    endif()
    _tensorrt_version(TensorRT_VERSION _TensorRT_unfit ${_TensorRT_flavour}
                      "${${_TensorRT_prefix}_INCLUDE_DIR}")
    if(TensorRT_VERSION)
      set(TensorRT_FOUND_FLAVOUR ${_TensorRT_flavour})
      if(_TensorRT_problem)
        message(WARNING "${_TensorRT_problem}. Taking ${${_TensorRT_prefix}_LIBRARY} instead")
        set(_TensorRT_problem "")
      endif()
      if(_TensorRT_root AND _TensorRT_round STREQUAL "anywhere")
        message(WARNING "TensorRT_ROOT (${_TensorRT_root}) holds no TensorRT; taking \
${${_TensorRT_prefix}_LIBRARY}")
      endif()
    elseif(NOT _TensorRT_problem)
      set(_TensorRT_problem "${_TensorRT_unfit}")
    endif()
  endforeach()
endforeach()

set(_TensorRT_prefix ${_TensorRT_prefix_tensorrt})
if(_TensorRT_wanted STREQUAL "tensorrt-rtx")
  set(_TensorRT_prefix ${_TensorRT_prefix_tensorrt-rtx})
endif()
if(TensorRT_FOUND_FLAVOUR)
  set(_TensorRT_prefix ${_TensorRT_prefix_${TensorRT_FOUND_FLAVOUR}})
  set(_TensorRT_include_dir "${${_TensorRT_prefix}_INCLUDE_DIR}")
  if(TARGET TensorRT::nvinfer)
    get_target_property(_TensorRT_earlier TensorRT::nvinfer IMPORTED_LOCATION)
    if(NOT _TensorRT_earlier STREQUAL "${${_TensorRT_prefix}_LIBRARY}")
      set(_TensorRT_problem "TensorRT::nvinfer is already ${_TensorRT_earlier}, and one project cannot \
hold ${${_TensorRT_prefix}_LIBRARY} beside it")
      set(TensorRT_VERSION "")
    endif()
  endif()
elseif(NOT _TensorRT_problem)
  _tensorrt_missing(_TensorRT_problem)
endif()
string(REGEX MATCH "^([0-9]+)\\.([0-9]+)\\.([0-9]+)" _TensorRT_parts "${TensorRT_VERSION}")
set(TensorRT_VERSION_MAJOR "${CMAKE_MATCH_1}")
set(TensorRT_VERSION_MINOR "${CMAKE_MATCH_2}")
set(TensorRT_VERSION_PATCH "${CMAKE_MATCH_3}")

foreach(_TensorRT_component IN LISTS _TensorRT_components)
  set(TensorRT_${_TensorRT_component}_FOUND FALSE)
  set(_TensorRT_name "${_TensorRT_${_TensorRT_component}_${TensorRT_FOUND_FLAVOUR}}")
  if(TensorRT_FOUND_FLAVOUR AND _TensorRT_name)
    # Only from beside the main library: parser and plugins of another version do not fit it.
    get_filename_component(_TensorRT_lib "${${_TensorRT_prefix}_LIBRARY}" DIRECTORY)
    find_library(${_TensorRT_prefix}_${_TensorRT_component}_LIBRARY NAMES ${_TensorRT_name}
                 HINTS "${_TensorRT_lib}" NO_DEFAULT_PATH)
    mark_as_advanced(${_TensorRT_prefix}_${_TensorRT_component}_LIBRARY)
    if(${_TensorRT_prefix}_${_TensorRT_component}_LIBRARY
       AND EXISTS "${_TensorRT_include_dir}/${_TensorRT_header_${_TensorRT_component}}")
      set(TensorRT_${_TensorRT_component}_FOUND TRUE)
    endif()
  endif()
endforeach()
foreach(_TensorRT_component IN LISTS TensorRT_FIND_COMPONENTS)
  if(NOT _TensorRT_component IN_LIST _TensorRT_components)
    list(JOIN _TensorRT_components " and " _TensorRT_known)
    set(_TensorRT_problem "there is no component ${_TensorRT_component}, only ${_TensorRT_known}")
  elseif(TensorRT_FOUND_FLAVOUR AND TensorRT_FIND_REQUIRED_${_TensorRT_component}
         AND NOT TensorRT_${_TensorRT_component}_FOUND AND NOT _TensorRT_problem)
    set(_TensorRT_problem "${${_TensorRT_prefix}_LIBRARY} has no \
${_TensorRT_target_${_TensorRT_component}} beside it, or ${_TensorRT_include_dir} no \
${_TensorRT_header_${_TensorRT_component}}")
  endif()
endforeach()

set(_TensorRT_reason "")
if(_TensorRT_problem)
  set(_TensorRT_reason REASON_FAILURE_MESSAGE "${_TensorRT_problem}")
endif()
find_package_handle_standard_args(TensorRT
  REQUIRED_VARS ${_TensorRT_prefix}_LIBRARY ${_TensorRT_prefix}_INCLUDE_DIR TensorRT_VERSION
  VERSION_VAR TensorRT_VERSION HANDLE_VERSION_RANGE HANDLE_COMPONENTS ${_TensorRT_reason})

if(TensorRT_FOUND)
  _tensorrt_target(nvinfer "${${_TensorRT_prefix}_LIBRARY}")
  foreach(_TensorRT_component IN LISTS _TensorRT_components)
    if(TensorRT_${_TensorRT_component}_FOUND)
      _tensorrt_target(${_TensorRT_target_${_TensorRT_component}}
                       "${${_TensorRT_prefix}_${_TensorRT_component}_LIBRARY}")
    endif()
  endforeach()
endif()
