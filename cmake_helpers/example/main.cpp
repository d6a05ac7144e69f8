// score_images bottle.trt IMAGE...: one JSON line per picture (issue 4).
//
// Exit 0: all pictures were scored; 1: an error, one sentence on stderr; 2: usage.

#include <cmath>
#include <exception>
#include <filesystem>
#include <iostream>
#include <nlohmann/json.hpp>

#include "engine.hpp"
#include "manifest.hpp"
#include "picture.hpp"

static std::string line(const std::string& file, float score, double threshold) {
  nlohmann::ordered_json verdict;
  verdict["file"] = file;
  verdict["score"] = static_cast<double>(score);
  verdict["threshold"] = threshold;
  verdict["anomalous"] = static_cast<double>(score) >= threshold;
  // A file name need not be UTF-8; JSON must be.
  return verdict.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

static void score_images(const std::filesystem::path& plan, int count, char** files) {
  const Manifest model = load_manifest(plan);
  Engine engine(plan, model);
  for (int i = 0; i < count; ++i) {
    const cv::Mat picture = read_picture(files[i]);
    const float score = engine.score(resize_to(picture, model.height, model.width));
    if (!std::isfinite(score))
      throw Error(std::string(files[i]) + ": the score is " + std::to_string(score) +
                  ", expected a finite number. Rebuild the plan; if it stays, export in float32");
    std::cout << line(files[i], score, model.threshold) << std::endl;
  }
}

int main(int argc, char** argv) {
  if (argc < 3) {
    std::cerr << "usage: score_images PLAN.trt IMAGE...\n";
    return 2;
  }
  try {
    score_images(argv[1], argc - 2, argv + 2);
  } catch (const std::exception& error) {
    std::cerr << "score_images: " << error.what() << "\n";
    return 1;
  }
  return 0;
}
