// Stand-in for libcudart: a GPU in main memory. At exit it complains about what was not released.
//
// STAND_IN_CUDA=none: there is no GPU; STAND_IN_CUDA=full: no memory can be had.
#include <cuda_runtime_api.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

struct CUstream_st {
  int unused;
};

namespace {

int held = 0;  // allocations and streams

struct AtExit {
  ~AtExit() {
    if (held != 0) std::fprintf(stderr, "stand-in CUDA: %d resources were not released\n", held);
  }
} at_exit;

bool mode(const char* name) {
  const char* set = std::getenv("STAND_IN_CUDA");
  return set && std::strcmp(set, name) == 0;
}

}  // namespace

extern "C" {

cudaError_t cudaSetDevice(int) { return mode("none") ? cudaErrorNoDevice : cudaSuccess; }

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  std::strcpy(properties->name, "Stand-in");
  properties->major = 8;
  properties->minor = 7;
  return cudaSuccess;
}

cudaError_t cudaMalloc(void** memory, std::size_t bytes) {
  if (mode("full")) return cudaErrorMemoryAllocation;
  *memory = std::malloc(bytes);
  ++held;
  return cudaSuccess;
}

cudaError_t cudaFree(void* memory) {
  std::free(memory);
  --held;
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind,
                            cudaStream_t) {
  std::memcpy(to, from, bytes);
  return cudaSuccess;
}

cudaError_t cudaStreamCreate(cudaStream_t* stream) {
  *stream = new CUstream_st{};
  ++held;
  return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  delete stream;
  --held;
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }

const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaErrorNoDevice ? "no CUDA-capable device is detected" : "out of memory";
}
}
