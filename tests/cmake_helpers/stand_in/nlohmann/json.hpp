// The part of nlohmann::json that the example uses, for tests without it: no \u escapes.
#pragma once

#include <cctype>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace nlohmann {

class json {
 public:
  enum class error_handler_t { strict, replace, ignore };

  json() = default;
  json& operator=(const std::string& text) { return set(Kind::string, text); }
  json& operator=(bool value) { return set(Kind::boolean, value ? "true" : "false"); }
  json& operator=(double value) {
    char text[32];
    std::snprintf(text, sizeof text, "%.17g", value);
    return set(Kind::real, text);
  }

  static json parse(const std::string& text, std::nullptr_t, bool) {
    std::size_t at = 0;
    json value = read(text, at);
    skip(text, at);
    if (at != text.size()) value.kind_ = Kind::discarded;
    return value;
  }

  bool is_object() const { return kind_ == Kind::object; }
  bool is_string() const { return kind_ == Kind::string; }
  bool is_number() const { return kind_ == Kind::real || kind_ == Kind::integer; }
  bool is_number_integer() const { return kind_ == Kind::integer; }
  bool contains(const char* key) const {
    for (const auto& member : members_)
      if (member.first == key) return true;
    return false;
  }
  const json& at(const char* key) const {
    for (const auto& member : members_)
      if (member.first == key) return member.second;
    throw std::out_of_range(key);
  }
  json& operator[](const char* key) {
    kind_ = Kind::object;
    members_.emplace_back(key, json());
    return members_.back().second;
  }
  template <class T>
  T get() const {
    if constexpr (std::is_same_v<T, std::string>)
      return text_;
    else
      return static_cast<T>(std::strtod(text_.c_str(), nullptr));
  }

  std::string dump(int = -1, char = ' ', bool = false,
                   error_handler_t = error_handler_t::strict) const {
    if (kind_ == Kind::null) return "null";
    if (kind_ == Kind::string) return quoted(text_);
    if (kind_ != Kind::object) return text_;
    std::string line = "{";
    for (const auto& [key, value] : members_)
      line += (line.size() > 1 ? "," : "") + quoted(key) + ":" + value.dump();
    return line + "}";
  }

 private:
  enum class Kind { null, boolean, integer, real, string, array, object, discarded };

  json& set(Kind kind, std::string text) {
    kind_ = kind;
    text_ = std::move(text);
    return *this;
  }

  static json make(Kind kind, std::string text) {
    json value;
    value.set(kind, std::move(text));
    return value;
  }

  static std::string quoted(const std::string& text) {
    std::string result = "\"";
    for (char c : text) result += (c == '"' || c == '\\') ? std::string("\\") + c : std::string(1, c);
    return result + "\"";
  }

  static void skip(const std::string& text, std::size_t& at) {
    while (at < text.size() && std::isspace(static_cast<unsigned char>(text[at]))) ++at;
  }

  static bool take(const std::string& text, std::size_t& at, char expected) {
    skip(text, at);
    if (at >= text.size() || text[at] != expected) return false;
    ++at;
    return true;
  }

  static json read(const std::string& text, std::size_t& at) {
    if (take(text, at, '{')) return read_members(text, at, '}', Kind::object);
    if (take(text, at, '[')) return read_members(text, at, ']', Kind::array);
    if (take(text, at, '"')) {
      std::string found;
      for (; at < text.size() && text[at] != '"'; ++at)
        found += text[at] == '\\' ? text[++at] : text[at];
      return take(text, at, '"') ? make(Kind::string, found) : make(Kind::discarded, "");
    }
    std::size_t end = at;
    while (end < text.size() && (std::isalnum(static_cast<unsigned char>(text[end])) ||
                                 text[end] == '-' || text[end] == '+' || text[end] == '.'))
      ++end;
    const std::string word = text.substr(at, end - at);
    at = end;
    if (word == "null") return json();
    if (word == "true" || word == "false") return make(Kind::boolean, word);
    char* rest = nullptr;
    std::strtod(word.c_str(), &rest);
    if (word.empty() || *rest != '\0') return make(Kind::discarded, "");
    return make(word.find_first_of(".eE") == word.npos ? Kind::integer : Kind::real, word);
  }

  static json read_members(const std::string& text, std::size_t& at, char close, Kind kind) {
    json result = make(kind, "");
    if (take(text, at, close)) return result;
    do {
      std::string key;
      if (kind == Kind::object) {
        key = read(text, at).text_;
        if (!take(text, at, ':')) return make(Kind::discarded, "");
      }
      result.members_.emplace_back(key, read(text, at));
      if (result.members_.back().second.kind_ == Kind::discarded) return make(Kind::discarded, "");
    } while (take(text, at, ','));
    return take(text, at, close) ? result : make(Kind::discarded, "");
  }

  Kind kind_ = Kind::null;
  std::string text_;
  std::vector<std::pair<std::string, json>> members_;
};

using ordered_json = json;

}  // namespace nlohmann
