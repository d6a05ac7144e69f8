// Stand-in for libnvinfer: a "plan" is text, and the score a weighted mean of the pixels.
//
// The plan's first line is STAND-IN; then words KEY=VALUE: height, width, and for the tests of what
// is refused batch, tensors (how many), input (name of the frames), score_type (half), score (a
// fixed number), run=no, context=no.
#include <NvInfer.h>

#include <cstdlib>
#include <map>
#include <sstream>
#include <string>
#include <vector>

namespace {

using Options = std::map<std::string, std::string>;
using namespace nvinfer1;

std::string option(const Options& options, const std::string& key, const std::string& otherwise) {
  const auto found = options.find(key);
  return found == options.end() ? otherwise : found->second;
}

int number(const Options& options, const std::string& key, int otherwise) {
  return std::atoi(option(options, key, std::to_string(otherwise)).c_str());
}

class Context : public IExecutionContext {
 public:
  explicit Context(Options options) : options_(std::move(options)) {}

  bool setInputShape(char const* name, Dims const& dims) noexcept override {
    shaped_ = std::string(name) == "frames" && dims.nbDims == 4 && dims.d[0] == 1 &&
              dims.d[1] == number(options_, "height", 0) &&
              dims.d[2] == number(options_, "width", 0) && dims.d[3] == 3;
    return shaped_;
  }

  bool setTensorAddress(char const* name, void* data) noexcept override {
    addresses_[name] = data;
    return data != nullptr;
  }

  // B counts 1, G 2 and R 4 parts of 7, so that a swapped colour order shows.
  bool enqueueV3(cudaStream_t stream) noexcept override {
    const int pixels = number(options_, "height", 0) * number(options_, "width", 0);
    if (!stream || !shaped_ || addresses_.size() != 4 || option(options_, "run", "") == "no")
      return false;
    const auto* bytes = static_cast<const unsigned char*>(addresses_["frames"]);
    double sum = 0;
    for (int i = 0; i < pixels; ++i)
      sum += bytes[3 * i] + 2.0 * bytes[3 * i + 1] + 4.0 * bytes[3 * i + 2];
    const auto fixed = options_.find("score");
    *static_cast<float*>(addresses_["image_score"]) =
        fixed == options_.end() ? static_cast<float>(sum / pixels / 7 / 255)
                                : std::strtof(fixed->second.c_str(), nullptr);
    for (const char* map : {"anomaly_map", "influence_map"})
      for (int i = 0; i < pixels; ++i) static_cast<float*>(addresses_[map])[i] = 0;
    return true;
  }

 private:
  Options options_;
  std::map<std::string, void*> addresses_;
  bool shaped_ = false;
};

class Engine : public ICudaEngine {
 public:
  explicit Engine(Options options) : options_(std::move(options)) {
    names_ = {option(options_, "input", "frames"), "image_score", "anomaly_map", "influence_map",
              "bank"};
    names_.resize(static_cast<std::size_t>(number(options_, "tensors", 4)));
    inputs_ = {names_[0]};
    if (option(options_, "bank", "") == "beside")
      for (const char* name : {"memory_bank", "bank_squares", "bank_statistics"}) {
        names_.push_back(name);
        inputs_.push_back(name);
      }
  }

  int32_t getNbIOTensors() const noexcept override { return static_cast<int32_t>(names_.size()); }

  char const* getIOTensorName(int32_t index) const noexcept override {
    return names_[static_cast<std::size_t>(index)].c_str();
  }

  TensorIOMode getTensorIOMode(char const* name) const noexcept override {
    for (const auto& known : inputs_)
      if (name == known) return TensorIOMode::kINPUT;
    for (const auto& known : names_)
      if (name == known) return TensorIOMode::kOUTPUT;
    return TensorIOMode::kNONE;
  }

  Dims getTensorShape(char const* name) const noexcept override {
    const int batch = number(options_, "batch", -1);
    const int height = number(options_, "height", 0), width = number(options_, "width", 0);
    if (name == names_[0]) return {4, {batch, height, width, 3}};
    if (std::string(name) == "image_score") return {1, {batch}};
    return {3, {batch, height, width}};
  }

  DataType getTensorDataType(char const* name) const noexcept override {
    if (name == names_[0]) return DataType::kUINT8;
    const bool half = std::string(name) == "image_score" &&
                      option(options_, "score_type", "float") == "half";
    return half ? DataType::kHALF : DataType::kFLOAT;
  }

  IExecutionContext* createExecutionContext() noexcept override {
    return option(options_, "context", "") == "no" ? nullptr : new Context(options_);
  }

 private:
  Options options_;
  std::vector<std::string> names_, inputs_;
};

class Runtime : public IRuntime {
 public:
  explicit Runtime(ILogger* logger) : logger_(logger) {}

  ICudaEngine* deserializeCudaEngine(void const* blob, std::size_t size) noexcept override {
    std::istringstream text(std::string(static_cast<const char*>(blob), size));
    std::string word;
    text >> word;
    if (word != "STAND-IN") {
      logger_->log(ILogger::Severity::kERROR, "the magic tag does not match");
      return nullptr;
    }
    logger_->log(ILogger::Severity::kINFO, "loaded");
    Options options;
    while (text >> word) options[word.substr(0, word.find('='))] = word.substr(word.find('=') + 1);
    return new Engine(options);
  }

 private:
  ILogger* logger_;
};

}  // namespace

extern "C" void* createInferRuntime_INTERNAL(void* logger, int32_t) noexcept {
  return new Runtime(static_cast<ILogger*>(logger));
}
