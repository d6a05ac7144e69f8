// A plan on the GPU: uint8 BGR frames in, image scores out (DESIGN sections 2 and 5).
#pragma once

#include <NvInfer.h>
#include <cuda_runtime_api.h>

#include <filesystem>
#include <iostream>
#include <memory>
#include <opencv2/core.hpp>
#include <string>
#include <type_traits>
#include <vector>

#include "manifest.hpp"
#include "record.hpp"

inline void check(cudaError_t status, const std::string& doing) {
  if (status != cudaSuccess)
    throw Error("CUDA failed while " + doing + ": " + cudaGetErrorString(status));
}

/// TensorRT's warnings and errors go to stderr.
class Logger : public nvinfer1::ILogger {
 public:
  void log(Severity severity, const char* message) noexcept override {
    if (severity <= Severity::kWARNING) std::cerr << "TensorRT: " << message << "\n";
  }
};

struct CudaFree {
  void operator()(void* memory) const noexcept { cudaFree(memory); }
};
using DeviceMemory = std::unique_ptr<void, CudaFree>;

inline DeviceMemory allocate(std::size_t bytes) {
  void* memory = nullptr;
  check(cudaMalloc(&memory, bytes), "allocating " + std::to_string(bytes) + " bytes");
  return DeviceMemory(memory);
}

struct StreamDestroy {
  void operator()(cudaStream_t stream) const noexcept { cudaStreamDestroy(stream); }
};
using Stream = std::unique_ptr<std::remove_pointer_t<cudaStream_t>, StreamDestroy>;

inline Stream make_stream() {
  cudaStream_t stream = nullptr;
  check(cudaStreamCreate(&stream), "making a stream");
  return Stream(stream);
}

/// One tensor of the contract; every shape begins with the batch.
struct Tensor {
  std::string name;
  bool is_input;
  nvinfer1::DataType type;
  std::vector<int> frame;
  std::size_t element_bytes;

  std::size_t bytes() const {
    std::size_t total = element_bytes;
    for (int side : frame) total *= static_cast<std::size_t>(side);
    return total;
  }
};

inline std::vector<Tensor> contract(const Manifest& model) {
  const int h = model.height, w = model.width;
  return {{"frames", true, nvinfer1::DataType::kUINT8, {h, w, 3}, 1},
          {"image_score", false, nvinfer1::DataType::kFLOAT, {}, 4},
          {"anomaly_map", false, nvinfer1::DataType::kFLOAT, {h, w}, 4},
          {"influence_map", false, nvinfer1::DataType::kFLOAT, {h, w}, 4}};
}

class Engine {
 public:
  /// Throws an Error where the plan does not load here or is not what the manifest promises.
  Engine(const std::filesystem::path& plan, const Manifest& model) {
    const std::string bytes = read_file(plan, "Build it here with build-engine");
    const nlohmann::json record = load_record(plan);
    const std::string source = recorded(record, "onnx_sha256");
    if (source != "?" && source != model.onnx_sha256)
      throw Error(plan.string() + " was built from another model than " + model.path.string() +
                  " describes" + rebuild(plan));
    check(cudaSetDevice(0), "opening the first GPU");
    runtime_.reset(nvinfer1::createInferRuntime(logger_));
    if (!runtime_) throw Error("TensorRT does not start; its messages stand above");
    engine_.reset(runtime_->deserializeCudaEngine(bytes.data(), bytes.size()));
    if (!engine_) throw Error(does_not_load(plan, record));
    check_inputs(plan);
    check_tensors(plan, contract(model));
    context_.reset(engine_->createExecutionContext());
    if (!context_) throw Error(plan.string() + " cannot run: too little GPU memory is free");
    stream_ = make_stream();
    bind(contract(model));
  }

  /// The raw score of a frame, uint8 BGR at model size; larger is more anomalous.
  float score(const cv::Mat& frame) {
    const cv::Mat packed = frame.isContinuous() ? frame : frame.clone();
    const std::size_t bytes = packed.total() * packed.elemSize();
    float score = 0;
    check(cudaMemcpyAsync(frames_, packed.data, bytes, cudaMemcpyHostToDevice, stream_.get()),
          "copying a frame");
    if (!context_->enqueueV3(stream_.get()))
      throw Error("TensorRT refused to run the plan; its messages stand above");
    check(cudaMemcpyAsync(&score, score_, sizeof score, cudaMemcpyDeviceToHost, stream_.get()),
          "copying a score");
    check(cudaStreamSynchronize(stream_.get()), "running the plan");
    return score;
  }

 private:
  static std::string does_not_load(const std::filesystem::path& plan,
                                   const nlohmann::json& record) {
    cudaDeviceProp gpu{};
    check(cudaGetDeviceProperties(&gpu, 0), "asking for the GPU's name");
    std::string text = plan.string() + " does not load with " TENSORRT_BUILD " on " + gpu.name +
                       " (" + std::to_string(gpu.major) + "." + std::to_string(gpu.minor) + ")";
    if (record.is_object()) text += "; it was built with " + built_for(record);
    return text + rebuild(plan);
  }

  /// A plan that serves many products takes the bank as inputs, and this program has none to give.
  void check_inputs(const std::filesystem::path& plan) {
    std::string others;
    int inputs = 0;
    for (int i = 0; i < engine_->getNbIOTensors(); ++i) {
      const std::string name = engine_->getIOTensorName(i);
      if (engine_->getTensorIOMode(name.c_str()) != nvinfer1::TensorIOMode::kINPUT) continue;
      ++inputs;
      if (name != "frames") others += (others.empty() ? "" : ", ") + name;
    }
    if (inputs > 1)
      throw Error(plan.string() + " has inputs other than frames: " + others +
                  ". Give a plan that holds its memory bank: export-model without --bank external");
  }

  void check_tensors(const std::filesystem::path& plan, const std::vector<Tensor>& expected) {
    if (engine_->getNbIOTensors() != static_cast<int>(expected.size()))
      throw Error(plan.string() + " has " + std::to_string(engine_->getNbIOTensors()) +
                  " inputs and outputs, expected frames, image_score, anomaly_map and "
                  "influence_map" +
                  rebuild(plan));
    std::string wrong;
    for (const Tensor& tensor : expected)
      if (!fits(tensor)) wrong += (wrong.empty() ? "" : ", ") + tensor.name;
    if (!wrong.empty())
      throw Error(plan.string() + " differs from the manifest in name, type or shape of: " + wrong +
                  rebuild(plan));
  }

  bool fits(const Tensor& tensor) const {
    const auto mode =
        tensor.is_input ? nvinfer1::TensorIOMode::kINPUT : nvinfer1::TensorIOMode::kOUTPUT;
    const char* name = tensor.name.c_str();
    if (engine_->getTensorIOMode(name) != mode || engine_->getTensorDataType(name) != tensor.type)
      return false;
    const nvinfer1::Dims shape = engine_->getTensorShape(name);
    if (shape.nbDims != static_cast<int>(tensor.frame.size()) + 1) return false;
    if (shape.d[0] != -1 && shape.d[0] != 1) return false;
    for (std::size_t i = 0; i < tensor.frame.size(); ++i)
      if (shape.d[i + 1] != tensor.frame[i]) return false;
    return true;
  }

  void bind(const std::vector<Tensor>& tensors) {
    for (const Tensor& tensor : tensors) {
      memory_.push_back(allocate(tensor.bytes()));
      void* address = memory_.back().get();
      bool accepted = context_->setTensorAddress(tensor.name.c_str(), address);
      if (tensor.is_input) accepted = accepted && set_shape(tensor);
      if (!accepted) throw Error("the plan does not take one frame at a time: " + tensor.name);
    }
    frames_ = memory_[0].get();
    score_ = memory_[1].get();
  }

  bool set_shape(const Tensor& tensor) {
    nvinfer1::Dims shape{};
    shape.nbDims = static_cast<int>(tensor.frame.size()) + 1;
    shape.d[0] = 1;
    for (std::size_t i = 0; i < tensor.frame.size(); ++i) shape.d[i + 1] = tensor.frame[i];
    return context_->setInputShape(tensor.name.c_str(), shape);
  }

  // Released from the last to the first.
  Logger logger_;
  std::unique_ptr<nvinfer1::IRuntime> runtime_;
  std::unique_ptr<nvinfer1::ICudaEngine> engine_;
  std::unique_ptr<nvinfer1::IExecutionContext> context_;
  std::vector<DeviceMemory> memory_;
  Stream stream_;
  void* frames_ = nullptr;
  void* score_ = nullptr;
};
