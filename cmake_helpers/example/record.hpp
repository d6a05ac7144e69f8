// What a plan was built from, by what, for what: the record NAME.trt.json (DESIGN section 2).
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "manifest.hpp"

/// The record as far as it is there and is JSON.
inline nlohmann::json load_record(const std::filesystem::path& plan) {
  const std::filesystem::path path = plan.string() + ".json";
  if (!std::filesystem::exists(path)) return nlohmann::json();
  return nlohmann::json::parse(read_file(path, "Its permissions?"), nullptr, false);
}

inline nlohmann::json section(const nlohmann::json& record, const char* key) {
  if (!record.is_object() || !record.contains(key)) return nlohmann::json();
  return nlohmann::json(record.at(key));
}

/// A field as text; "?" where it is not there.
inline std::string recorded(const nlohmann::json& record, const char* key) {
  const nlohmann::json value = section(record, key);
  return value.is_string() ? value.get<std::string>() : "?";
}

/// By what and for what a plan was built, as "tensorrt 10.3.0 for Orin (8.7)".
inline std::string built_for(const nlohmann::json& record) {
  const nlohmann::json gpu = section(record, "device");
  const std::string by = recorded(record, "flavour") + " " + recorded(record, "version") + " for ";
  if (!gpu.is_object()) return by + "no GPU";
  return by + recorded(gpu, "gpu") + " (" + recorded(gpu, "compute_capability") + ")";
}

inline std::string rebuild(const std::filesystem::path& plan) {
  const auto onnx = std::filesystem::path(plan).replace_extension(".onnx");
  return ". Rebuild it here: build-engine " + onnx.string();
}
