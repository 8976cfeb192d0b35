// Plays TensorRT to a plugin library on a machine without a GPU. Build with -rdynamic, so that the library
// finds getInferLibVersion below as it would find TensorRT's. With the library as its only argument, it calls
// every function of the plugins up to enqueue() in TensorRT's order, in every form of the operators, and prints what
// they answer as JSON.
// See run() for the rest.
#include <dlfcn.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "NvInferRuntime.h"

using namespace nvinfer1;

extern "C" int32_t getInferLibVersion() noexcept { return NV_TENSORRT_VERSION; }

namespace {

constexpr int32_t port_limit = 16;

std::vector<std::string> log_lines;

struct Logger : ILogger {
  void log(Severity, const char *message) noexcept override { log_lines.push_back(message); }
};

struct LoggerFinder : ILoggerFinder {
  ILogger *findLogger() override { return &logger; }
  Logger logger;
};

// A symbolic size; the plugins have no reason to look into it.
struct Size : IDimensionExpr {};

struct Builder : IExprBuilder {};

std::string quoted(const std::string &text) {
  std::string result = "\"";
  for (char c : text) result += c == '"' || c == '\\' ? std::string("\\") + c : std::string(1, c);
  return result + "\"";
}

template <class Items, class Text>
std::string list_of(const Items &items, const Text &text) {
  std::string result = "[";
  for (const auto &item : items) result += (result.size() > 1 ? ", " : "") + text(item);
  return result + "]";
}

std::string number(int64_t value) { return std::to_string(value); }

// What the plugin logged since the last call.
std::string logged() {
  const std::string result = list_of(log_lines, quoted);
  log_lines.clear();
  return result;
}

using Shapes = std::vector<std::vector<int64_t>>;

Dims dims_of(const std::vector<int64_t> &shape) {
  Dims dims{static_cast<int32_t>(shape.size()), {}};
  std::copy(shape.begin(), shape.end(), dims.d);
  return dims;
}

std::vector<PluginTensorDesc> descs_of(const Shapes &shapes, const std::vector<DataType> &types) {
  std::vector<PluginTensorDesc> descs;
  for (size_t i = 0; i < shapes.size(); ++i) {
    descs.push_back({dims_of(shapes[i]), types[i], TensorFormat::kLINEAR, 0.f});
  }
  return descs;
}

// With dynamic batch and length, from one token to the given shapes.
std::vector<DynamicPluginTensorDesc> dynamic_descs_of(const Shapes &shapes, const std::vector<DataType> &types) {
  std::vector<DynamicPluginTensorDesc> result;
  for (const PluginTensorDesc &desc : descs_of(shapes, types)) {
    DynamicPluginTensorDesc dynamic{desc, desc.dims, desc.dims, desc.dims};
    if (desc.dims.nbDims >= 3) {
      dynamic.desc.dims.d[0] = -1;
      dynamic.min.d[0] = 1;
    }
    result.push_back(dynamic);
  }
  return result;
}

// Every assignment of types and formats to all ports that the plugin accepts, one digit per port's type.
void accepted(IPluginV3OneBuild &build, int32_t position, DynamicPluginTensorDesc *ports, int32_t inputs,
              int32_t outputs, std::vector<std::string> &found) {
  if (position == inputs + outputs) {
    std::string types;
    for (int32_t i = 0; i < position; ++i) types += std::to_string(static_cast<int32_t>(ports[i].desc.type));
    found.push_back(types);
    return;
  }
  for (int32_t format = 0; format < EnumMax<TensorFormat>(); ++format) {
    for (int32_t type = 0; type < EnumMax<DataType>(); ++type) {
      ports[position].desc.format = static_cast<TensorFormat>(format);
      ports[position].desc.type = static_cast<DataType>(type);
      if (build.supportsFormatCombination(position, ports, inputs, outputs)) {
        accepted(build, position + 1, ports, inputs, outputs, found);
        ports[position].desc.format = static_cast<TensorFormat>(format);
        ports[position].desc.type = static_cast<DataType>(type);
      }
    }
  }
}

// Of each input and output, the letters of its axes and whether it is an activation or a parameter; how many inputs
// a node may have; and the attribute.
struct Ports {
  std::vector<std::string> inputs;
  std::string input_roles;
  std::vector<std::string> outputs;
  std::string output_roles;
  std::vector<int32_t> counts;
  const char *flag;
};

const std::map<std::string, Ports> ports_of = {
    {"SelectiveScan",
     {{"BLD", "BLD", "DN", "BLGN", "BLGN", "D", "D", "BDN", "BLD"},
      "aapaapppa",
      {"BLD", "BDN"},
      "ap",
      {8, 9},
      "delta_softplus"}},
    {"CausalConv1d", {{"BLD", "DK", "D", "BkD"}, "appa", {"BLD", "BkD"}, "aa", {4}, "activation"}}};

// The ports of a node with so many inputs.
Ports ports_with(const IPluginCreatorV3One &creator, int32_t inputs) {
  Ports ports = ports_of.at(creator.getPluginName());
  ports.inputs.resize(inputs);
  ports.input_roles.resize(inputs);
  return ports;
}

// "name=value, ..." of integers.
std::string text_of(const PluginFieldCollection &fields) {
  std::string text;
  for (int32_t i = 0; i < fields.nbFields; ++i) {
    const PluginField &field = fields.fields[i];
    const bool known = field.type == PluginFieldType::kINT32 && field.length == 1 && field.data;
    text += std::string(i ? ", " : "") + field.name + "=" +
            (known ? std::to_string(*static_cast<const int32_t *>(field.data)) : "?");
  }
  return text;
}

using Sizes = std::map<char, int64_t>;  // 'k' is K - 1

Shapes shapes_of(const std::vector<std::string> &ports, const Sizes &sizes) {
  Shapes shapes;
  for (const std::string &axes : ports) {
    shapes.emplace_back();
    for (char axis : axes) shapes.back().push_back(sizes.at(axis));
  }
  return shapes;
}

std::vector<DataType> types_of(const std::string &roles, DataType activation) {
  std::vector<DataType> types;
  for (char role : roles) types.push_back(role == 'a' ? activation : DataType::kFLOAT);
  return types;
}

template <class Capability>
Capability &capability(IPluginV3 &plugin, PluginCapabilityType type) {
  return *static_cast<Capability *>(plugin.getCapabilityInterface(type));
}

std::string drive(IPluginCreatorV3One &creator, int32_t inputs, int32_t flag) {
  std::string facts = "{\"name\": " + quoted(creator.getPluginName()) + ", \"version\": " +
                      quoted(creator.getPluginVersion()) + ", \"namespace\": " + quoted(creator.getPluginNamespace());
  const auto fact = [&](const char *key, const std::string &json) { facts += ", " + quoted(key) + ": " + json; };
  const Ports example = ports_with(creator, inputs);
  Sizes example_sizes = {{'B', 2}, {'L', 1000}, {'D', 6}, {'G', 2}, {'N', 16}, {'K', 4}, {'k', 3}};
  const Shapes example_shapes = shapes_of(example.inputs, example_sizes);

  const int32_t zero = 0, one_integer = 1, two = 2;
  const float one = 1;
  const auto refusal = [&](const char *key, const std::vector<PluginField> &fields, TensorRTPhase phase) {
    const PluginFieldCollection attributes{static_cast<int32_t>(fields.size()), fields.data()};
    const std::unique_ptr<IPluginV3> made(creator.createPlugin("node", &attributes, phase));
    fact(key, number(made != nullptr));
    fact((std::string(key) + "_log").c_str(), logged());
  };
  refusal("unknown_attribute", {{"unknown", "1", PluginFieldType::kCHAR, 1}}, TensorRTPhase::kBUILD);
  refusal("bad_attribute", {{example.flag, &two, PluginFieldType::kINT32, 1}}, TensorRTPhase::kBUILD);
  refusal("float_attribute", {{example.flag, &one, PluginFieldType::kFLOAT32, 1}}, TensorRTPhase::kBUILD);
  refusal("token_major", {{"channel_major", &zero, PluginFieldType::kINT32, 1}}, TensorRTPhase::kBUILD);
  refusal("channel_major", {{"channel_major", &one_integer, PluginFieldType::kINT32, 1}}, TensorRTPhase::kBUILD);
  refusal("older_engine", {}, TensorRTPhase::kRUNTIME);  // its plugins serialised nothing
  fact("attributes", quoted(text_of(*creator.getFieldNames())));

  const PluginField fields[] = {{"plugin_version", "1", PluginFieldType::kCHAR, 1},
                                {"plugin_namespace", "dvmsr", PluginFieldType::kCHAR, 5},
                                {example.flag, &flag, PluginFieldType::kINT32, 1}};
  // A node without the attribute has 1.
  const PluginFieldCollection attributes{flag ? 2 : 3, fields};
  std::unique_ptr<IPluginV3> plugin(creator.createPlugin("node", &attributes, TensorRTPhase::kBUILD));
  fact("inputs", number(inputs));
  fact("flag", number(flag));

  auto *core = &capability<IPluginV3OneCore>(*plugin, PluginCapabilityType::kCORE);
  auto *build = &capability<IPluginV3OneBuild>(*plugin, PluginCapabilityType::kBUILD);
  fact("core", quoted(std::string(core->getPluginNamespace()) + "::" + core->getPluginName() + " " +
                      core->getPluginVersion()));
  const int32_t outputs = build->getNbOutputs();
  fact("outputs", number(outputs));

  std::vector<std::string> combinations;
  DynamicPluginTensorDesc ports[port_limit] = {};
  accepted(*build, 0, ports, inputs, outputs, combinations);
  fact("combinations", list_of(combinations, quoted));
  fact("wrong_port_count", number(build->supportsFormatCombination(0, ports, inputs, outputs + 1)));
  fact("wrong_port_count_log", logged());
  fact("too_few_inputs", number(build->supportsFormatCombination(0, ports, example.counts.front() - 1, outputs)));
  fact("too_few_inputs_log", logged());

  const auto types_with = [&](DataType activation) { return types_of(example.input_roles, activation); };
  std::vector<std::string> output_types;
  for (DataType activation : {DataType::kFLOAT, DataType::kHALF, DataType::kBF16, DataType::kINT8}) {
    const std::vector<DataType> types = types_with(activation);
    DataType results[port_limit];
    const int32_t status = build->getOutputDataTypes(results, outputs, types.data(), inputs);
    std::string text = status ? "refused" : "";
    for (int32_t i = 0; !status && i < outputs; ++i) text += std::to_string(static_cast<int32_t>(results[i]));
    output_types.push_back(text);
  }
  fact("output_types", list_of(output_types, quoted));
  fact("output_types_log", logged());
  const std::vector<DataType> all_half(inputs, DataType::kHALF);
  DataType ignored[port_limit];
  fact("half_parameters", number(build->getOutputDataTypes(ignored, outputs, all_half.data(), inputs)));
  fact("half_parameters_log", logged());

  Size sizes[port_limit][Dims::MAX_DIMS];
  std::vector<DimsExprs> input_exprs(inputs), output_exprs(outputs);
  for (int32_t i = 0; i < inputs; ++i) {
    input_exprs[i].nbDims = static_cast<int32_t>(example_shapes[i].size());
    for (int32_t axis = 0; axis < input_exprs[i].nbDims; ++axis) input_exprs[i].d[axis] = &sizes[i][axis];
  }
  Builder builder;
  build->getOutputShapes(input_exprs.data(), inputs, nullptr, 0, output_exprs.data(), outputs, builder);
  std::vector<std::string> shapes;
  for (const DimsExprs &exprs : output_exprs) {
    std::vector<int64_t> shape;  // the example's size behind each expression
    for (int32_t axis = 0; axis < exprs.nbDims; ++axis) {
      const int64_t index = static_cast<const Size *>(exprs.d[axis]) - &sizes[0][0];
      shape.push_back(example_shapes[index / Dims::MAX_DIMS][index % Dims::MAX_DIMS]);
    }
    shapes.push_back(list_of(shape, number));
  }
  fact("output_shapes", list_of(shapes, [](const std::string &text) { return text; }));

  auto dynamic = dynamic_descs_of(example_shapes, types_with(DataType::kHALF));
  fact("configure", number(build->configurePlugin(dynamic.data(), inputs, ports, outputs)));
  std::vector<int32_t> tactics(build->getNbTactics());
  fact("valid_tactics", number(build->getValidTactics(tactics.data(), build->getNbTactics())));
  fact("tactics", list_of(tactics, number));
  std::vector<int64_t> workspaces;
  for (int64_t length : {1, 100, 1000, 100000}) {
    auto descs = dynamic;
    for (DynamicPluginTensorDesc &desc : descs) {
      for (int64_t &size : desc.max.d) size = size == 1000 ? length : size;
    }
    workspaces.push_back(static_cast<int64_t>(build->getWorkspaceSize(descs.data(), inputs, ports, outputs)));
  }
  fact("workspaces", list_of(workspaces, number));
  const auto exact = build->getWorkspaceSize(dynamic.data(), inputs, ports, outputs);
  dynamic[0].max.d[1] = 1;  // TensorRT's bounds need not be equally wide
  fact("workspace_of_other_bounds", number(build->getWorkspaceSize(dynamic.data(), inputs, ports, outputs) == exact));
  fact("timing_cache_id", quoted(build->getTimingCacheID()));

  // To the plan and back.
  auto *runtime = &capability<IPluginV3OneRuntime>(*plugin, PluginCapabilityType::kRUNTIME);
  const PluginFieldCollection *serialised = runtime->getFieldsToSerialize();
  fact("serialised", quoted(text_of(*serialised)));
  std::unique_ptr<IPluginV3> loaded(creator.createPlugin("node", serialised, TensorRTPhase::kRUNTIME));
  std::unique_ptr<IPluginV3> clone(loaded->clone());
  loaded.reset();
  runtime = &capability<IPluginV3OneRuntime>(*clone, PluginCapabilityType::kRUNTIME);
  fact("serialised_by_the_clone", quoted(text_of(*runtime->getFieldsToSerialize())));
  std::vector<int32_t> statuses = {runtime->setTactic(0)};
  for (int32_t tactic : tactics) statuses.push_back(runtime->setTactic(tactic));
  fact("set_tactic", list_of(statuses, number));
  fact("log_before_errors", logged());
  fact("bad_tactic", number(runtime->setTactic(12345)));
  fact("bad_tactic_log", logged());

  std::unique_ptr<IPluginV3> attached(runtime->attachToContext(nullptr));
  runtime = &capability<IPluginV3OneRuntime>(*attached, PluginCapabilityType::kRUNTIME);
  auto descs = descs_of(example_shapes, types_with(DataType::kHALF));
  const std::vector<PluginTensorDesc> output_descs(outputs);
  const int32_t early = runtime->enqueue(descs.data(), output_descs.data(), nullptr, nullptr, nullptr, nullptr);
  fact("early_enqueue", number(early));
  fact("early_enqueue_log", logged());
  fact("shape_change", number(runtime->onShapeChange(descs.data(), inputs, output_descs.data(), outputs)));
  fact("shape_change_log", logged());
  descs.back().dims.d[0] = 3;
  fact("bad_shape", number(runtime->onShapeChange(descs.data(), inputs, output_descs.data(), outputs)));
  fact("bad_shape_log", logged());
  example_sizes['G'] = 4;
  descs = descs_of(shapes_of(example.inputs, example_sizes), types_with(DataType::kHALF));
  fact("bad_groups", number(runtime->onShapeChange(descs.data(), inputs, output_descs.data(), outputs)));
  fact("bad_groups_log", logged());
  return facts + "}";
}

int64_t bytes_of(const PluginTensorDesc &desc) {
  int64_t bytes = desc.type == DataType::kFLOAT ? 4 : 2;
  for (int32_t axis = 0; axis < desc.dims.nbDims; ++axis) bytes *= desc.dims.d[axis];
  return bytes;
}

// Device memory, a stream and graphs of a libdvmsr_cuda; the real one or the emulated one.
class Device {
 public:
  explicit Device(const char *path) : library_(dlopen(path, RTLD_NOW | RTLD_LOCAL)) {
    if (!library_) fail(dlerror());
    call<void **>("stream_create", &stream);
  }
  Device(const Device &) = delete;
  ~Device() {
    for (const auto &[how, pointer] : allocated_) call<void *>(how, pointer);
    call<void *>("stream_destroy", stream);
  }

  // Pinned, for copies in the order of the stream.
  void *host(size_t bytes) { return allocate("malloc_host", "free_host", bytes); }
  void *memory(size_t bytes) { return allocate("malloc", "free", bytes); }
  void copy(void *to, const void *from, size_t bytes) {
    call<void *, const void *, size_t, void *>("copy", to, from, bytes, stream);
  }
  void poison(void *to, size_t bytes) { call<void *, int32_t, size_t, void *>("fill", to, 0xff, bytes, stream); }
  void wait() { call<void *>("stream_synchronize", stream); }
  template <class Work>
  void run_as_graph(const Work &work) {
    void *graph;
    call<void *>("graph_begin", stream);
    work();
    call<void *, void **>("graph_end", stream, &graph);
    call<void *, void *>("graph_launch", graph, stream);
    wait();
    call<void *>("graph_destroy", graph);
  }

  void *stream = nullptr;

 private:
  [[noreturn]] static void fail(const char *what) {
    std::fprintf(stderr, "device: %s\n", what);
    std::exit(1);
  }
  template <class... Parameters>
  void call(const char *name, Parameters... arguments) {
    const auto function = dlsym(library_, (std::string("dvmsr_cuda_") + name).c_str());
    if (!function || reinterpret_cast<int (*)(Parameters...)>(function)(arguments...)) fail(name);
  }
  void *allocate(const char *how, const char *free, size_t bytes) {
    void *pointer;
    call<void **, size_t>(how, &pointer, bytes ? bytes : 1);
    allocated_.emplace_back(free, pointer);
    return pointer;
  }

  void *library_;
  std::vector<std::pair<const char *, void *>> allocated_;
};

// Runs enqueue on the device twice, as a call and as a graph; both must give the same.
template <class Enqueue>
int run_on_device(Device &device, const std::vector<std::vector<char>> &inputs,
                  std::vector<std::vector<char>> &outputs, size_t workspace_bytes, const Enqueue &enqueue) {
  std::vector<const void *> input_pointers;
  std::vector<void *> output_pointers;
  for (const auto &data : inputs) {
    void *staged = device.host(data.size()), *memory = device.memory(data.size());
    std::copy(data.begin(), data.end(), static_cast<char *>(staged));
    device.copy(memory, staged, data.size());
    input_pointers.push_back(memory);
  }
  for (const auto &data : outputs) output_pointers.push_back(device.memory(data.size()));
  void *workspace = device.memory(workspace_bytes);
  int status = 0;
  const auto work = [&] {
    status |= enqueue(input_pointers.data(), output_pointers.data(), workspace, device.stream);
  };
  for (const bool graph : {false, true}) {
    for (size_t i = 0; i < outputs.size(); ++i) device.poison(output_pointers[i], outputs[i].size());
    device.poison(workspace, workspace_bytes);
    if (graph)
      device.run_as_graph(work);
    else
      work();
    for (size_t i = 0; i < outputs.size(); ++i) {
      void *staged = device.host(outputs[i].size());
      device.copy(staged, output_pointers[i], outputs[i].size());
      device.wait();
      const char *bytes = static_cast<const char *>(staged);
      if (graph && !std::equal(outputs[i].begin(), outputs[i].end(), bytes)) {
        std::fprintf(stderr, "output %zu of the graph differs from that of the call\n", i);
        status |= 1;
      }
      outputs[i].assign(bytes, bytes + outputs[i].size());
    }
  }
  return status;
}

// Arguments: activation type, tactic, the attribute's value, the number of inputs, then axes and their sizes in turn.
// Reads the inputs from stdin as they lie in memory, calls enqueue() and writes the outputs to stdout likewise. The
// tensors are in host memory, for kernels that run there, or in that of the device of the library that the
// environment variable DVMSR_CUDA_LIBRARY names.
int run(IPluginCreatorV3One &creator, char **arguments) {
  const auto activation = static_cast<DataType>(std::stoi(arguments[0]));
  const int32_t tactic = std::stoi(arguments[1]);
  const int32_t flag = std::stoi(arguments[2]);
  const Ports ports = ports_with(creator, std::stoi(arguments[3]));
  Sizes sizes;
  for (char **axis = arguments + 4; *axis; axis += 2) sizes[**axis] = std::stoll(axis[1]);
  const Shapes shapes = shapes_of(ports.inputs, sizes);
  const auto inputs = descs_of(shapes, types_of(ports.input_roles, activation));
  const auto outputs = descs_of(shapes_of(ports.outputs, sizes), types_of(ports.output_roles, activation));
  const auto input_count = static_cast<int32_t>(inputs.size()), output_count = static_cast<int32_t>(outputs.size());

  const auto dynamic = dynamic_descs_of(shapes, types_of(ports.input_roles, activation));
  const PluginField field(ports.flag, &flag, PluginFieldType::kINT32, 1);
  const PluginFieldCollection fields{1, &field};
  std::unique_ptr<IPluginV3> plugin(creator.createPlugin("node", &fields, TensorRTPhase::kRUNTIME));
  auto &build = capability<IPluginV3OneBuild>(*plugin, PluginCapabilityType::kBUILD);

  std::vector<std::vector<char>> input_data, output_data;
  for (const PluginTensorDesc &desc : inputs) {
    input_data.emplace_back(bytes_of(desc));
    std::vector<char> &data = input_data.back();
    if (!data.empty() && std::fread(data.data(), data.size(), 1, stdin) != 1) return 1;
  }
  for (const PluginTensorDesc &desc : outputs) output_data.emplace_back(bytes_of(desc), '\xff');
  const size_t workspace_bytes = build.getWorkspaceSize(dynamic.data(), input_count, nullptr, output_count);
  std::vector<const void *> input_pointers;
  for (const auto &data : input_data) input_pointers.push_back(data.data());
  std::vector<void *> output_pointers;
  for (auto &data : output_data) output_pointers.push_back(data.data());

  auto &runtime = capability<IPluginV3OneRuntime>(*plugin, PluginCapabilityType::kRUNTIME);
  int32_t status = runtime.setTactic(tactic);
  if (!status) status = runtime.onShapeChange(inputs.data(), input_count, outputs.data(), output_count);
  const auto enqueue = [&](const void *const *in, void *const *out, void *workspace, void *stream) {
    return runtime.enqueue(inputs.data(), outputs.data(), in, out, workspace, static_cast<cudaStream_t>(stream));
  };
  const char *device_library = std::getenv("DVMSR_CUDA_LIBRARY");
  if (!status && device_library) {
    Device device(device_library);
    status = run_on_device(device, input_data, output_data, workspace_bytes, enqueue);
  } else if (!status) {
    std::vector<char> workspace(workspace_bytes);
    status = enqueue(input_pointers.data(), output_pointers.data(), workspace.data(), nullptr);
  }
  for (const std::string &line : log_lines) std::fprintf(stderr, "%s\n", line.c_str());
  for (const auto &data : output_data) {
    if (!data.empty()) std::fwrite(data.data(), data.size(), 1, stdout);
  }
  return status;
}

}  // namespace

// Arguments: the plugin library; for run() also the operator and run()'s own.
int main(int count, char **arguments) {
  void *library = dlopen(arguments[1], RTLD_NOW | RTLD_LOCAL);
  if (!library) return std::fprintf(stderr, "%s\n", dlerror()), 1;
  LoggerFinder finder;
  reinterpret_cast<void (*)(ILoggerFinder *)>(dlsym(library, "setLoggerFinder"))(&finder);
  int32_t creator_count = 0;
  auto *const *creators = reinterpret_cast<IPluginCreatorInterface *const *(*)(int32_t &)>(
      dlsym(library, "getCreators"))(creator_count);
  std::vector<IPluginCreatorV3One *> all;
  for (int32_t i = 0; i < creator_count; ++i) all.push_back(static_cast<IPluginCreatorV3One *>(creators[i]));
  for (IPluginCreatorV3One *creator : all) {
    if (count > 2 && std::string(arguments[2]) == creator->getPluginName()) return run(*creator, arguments + 3);
  }
  std::vector<std::string> driven;
  for (IPluginCreatorV3One *creator : all) {
    for (int32_t inputs : ports_of.at(creator->getPluginName()).counts) {
      for (int32_t flag : {0, 1}) driven.push_back(drive(*creator, inputs, flag));
    }
  }
  std::printf("%s\n", list_of(driven, [](const std::string &facts) { return facts; }).c_str());
  return 0;
}
