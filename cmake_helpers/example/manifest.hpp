// What an exported model promises, from the JSON beside the plan (DESIGN section 2).
#pragma once

#include <cmath>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>

/// An error for the user: one sentence, what was found, what was expected, what to do.
struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Height and width in pixels of the model's frames; scores at or above `threshold` are anomalous.
struct Manifest {
  std::filesystem::path path;
  int height;
  int width;
  double threshold;
  std::string onnx_sha256;
};

inline std::string read_file(const std::filesystem::path& path, const std::string& advice) {
  std::ifstream file(path, std::ios::binary);
  if (!file || std::filesystem::is_directory(path))
    throw Error(path.string() + " cannot be read. " + advice);
  return {std::istreambuf_iterator<char>(file), {}};
}

/// JSON `a.b` as a value; throws an Error that names it where it is missing.
inline nlohmann::json field(const Manifest& manifest, nlohmann::json value, const char* section,
                            const char* name) {
  for (const char* key : {section, name}) {
    if (!value.is_object() || !value.contains(key))
      throw Error(manifest.path.string() + " has no " + section + "." + name +
                  ". The file is no Patchline manifest or was edited: export the model again");
    value = nlohmann::json(value.at(key));
  }
  return value;
}

inline int pixels(const Manifest& manifest, const nlohmann::json& document, const char* side) {
  const nlohmann::json value = field(manifest, document, "model_size", side);
  constexpr int largest = 16384;  // so that no size in bytes overflows
  if (!value.is_number_integer() || value.get<double>() < 1 || value.get<double>() > largest)
    throw Error(manifest.path.string() + ": model_size." + side + " is " + value.dump() +
                ", expected pixels from 1 to " + std::to_string(largest));
  return value.get<int>();
}

/// Reads NAME.json beside NAME.trt.
inline Manifest load_manifest(const std::filesystem::path& plan) {
  Manifest manifest{std::filesystem::path(plan).replace_extension(".json"), 0, 0, 0, ""};
  const std::string text =
      read_file(manifest.path, "It holds the threshold: copy it here together with the plan");
  const nlohmann::json document = nlohmann::json::parse(text, nullptr, false);
  if (!document.is_object())
    throw Error(manifest.path.string() + " is no manifest: expected a JSON object");
  if (document.contains("kind") && nlohmann::json(document.at("kind")).dump() == "\"graph\"")
    throw Error(manifest.path.string() + " describes a model without a memory bank, and this "
                "program hands over none. Give a plan that holds its own: export-model without "
                "--bank external");
  const nlohmann::json version =
      document.contains("schema_version") ? document.at("schema_version") : nlohmann::json();
  if (!version.is_number_integer() || version.get<double>() != 1)
    throw Error(manifest.path.string() + ": schema_version is " + version.dump() +
                ", expected 1. Use a newer score_images, or export the model again");
  manifest.height = pixels(manifest, document, "height");
  manifest.width = pixels(manifest, document, "width");
  const nlohmann::json threshold = field(manifest, document, "threshold", "value");
  if (!threshold.is_number() || !std::isfinite(threshold.get<double>()))
    throw Error(manifest.path.string() + ": threshold.value is " + threshold.dump() +
                ", expected a finite number");
  manifest.threshold = threshold.get<double>();
  const nlohmann::json digest = field(manifest, document, "onnx", "sha256");
  manifest.onnx_sha256 = digest.is_string() ? digest.get<std::string>() : "";
  return manifest;
}
