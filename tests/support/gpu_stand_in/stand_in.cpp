// "cuda" tensors in a torch that was built without CUDA, for tests on machines without a GPU.
//
// Their memory is ordinary memory, and every operation runs the CPU's kernel on it. A fallback
// for the dispatch key CUDA converts the arguments to CPU tensors that share the memory, and
// converts the results back. As a GPU would, it refuses to mix devices. It reports to a
// listener what would make the host wait for the device, and copies between host and device.
//
// The library must be loaded before torch is imported, because torch asks only once whether
// there is a GPU.
#include <ATen/ATen.h>
#include <ATen/EmptyTensor.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/FakeGuardImpl.h>
#include <torch/library.h>

#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

using at::Tensor;
using c10::Device;
using c10::DeviceType;
using c10::IValue;
using torch::jit::Stack;
using Guard = c10::impl::FakeGuardImpl<DeviceType::CUDA>;

static constexpr int kNumDevices = 8;  // as many as FakeGuardImpl has

static c10::impl::DeviceGuardImplRegistrar guard(DeviceType::CUDA, new Guard());

static Device current_device() { return Device(DeviceType::CUDA, Guard::getDeviceIndex()); }

// ---- Memory: pinned memory of the host, and the bytes of all device tensors ----------------

static void* allocate(size_t bytes) {
  void* address = nullptr;
  if (bytes && posix_memalign(&address, 64, bytes)) throw std::bad_alloc();
  return address;
}

static std::mutex pinned_mutex;
static std::map<const char*, size_t>& pinned_blocks() {  // never destroyed: frees come late
  static auto* blocks = new std::map<const char*, size_t>();
  return *blocks;
}

static void free_pinned(void* address) {
  if (!address) return;
  {
    std::lock_guard<std::mutex> lock(pinned_mutex);
    pinned_blocks().erase(static_cast<char*>(address));
  }
  std::free(address);
}

static bool is_pinned(const void* address) {
  std::lock_guard<std::mutex> lock(pinned_mutex);
  auto* first = static_cast<const char*>(address);
  auto after = pinned_blocks().upper_bound(first);
  if (after == pinned_blocks().begin()) return false;
  auto block = std::prev(after);
  return first < block->first + block->second;
}

struct PinnedAllocator final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    void* address = ::allocate(bytes);
    if (address) {
      std::lock_guard<std::mutex> lock(pinned_mutex);
      pinned_blocks()[static_cast<char*>(address)] = bytes;
    }
    return {address, address, &free_pinned, Device(DeviceType::CPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &free_pinned; }
  void copy_data(void* to, const void* from, std::size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }
};

// The bytes of device memory that tensors use now, and the largest such number so far.
class MemoryUse {
 public:
  void add(int64_t bytes) {
    std::lock_guard<std::mutex> lock(mutex_);
    now_ += bytes;
    peak_ = std::max(peak_, now_);
  }
  int64_t now() { return read(now_); }
  int64_t peak() { return read(peak_); }
  void reset_peak() {
    std::lock_guard<std::mutex> lock(mutex_);
    peak_ = now_;
  }

 private:
  int64_t read(const int64_t& value) {
    std::lock_guard<std::mutex> lock(mutex_);
    return value;
  }
  std::mutex mutex_;
  int64_t now_ = 0, peak_ = 0;
};

// The bytes of memory that each device has.
static int64_t device_memory() {
  static const char* text = std::getenv("GPU_STAND_IN_MEMORY");
  static const int64_t bytes = text ? std::atoll(text) : int64_t(80) << 30;
  return bytes;
}

static std::string mebibytes(int64_t bytes) {
  char text[32];
  std::snprintf(text, sizeof text, "%.2f MiB", double(bytes) / (1 << 20));
  return text;
}

static MemoryUse& memory_use() {  // never destroyed: tensors are freed until the very end
  static auto* use = new MemoryUse();
  return *use;
}

// What a device tensor's memory really is: a storage of the CPU, or a block of its own.
struct DeviceBlock {
  std::optional<c10::Storage> host;
  void* address;
  int64_t bytes;

  DeviceBlock(std::optional<c10::Storage> storage, void* start, int64_t size)
      : host(std::move(storage)), address(start), bytes(size) {
    memory_use().add(bytes);
  }
  ~DeviceBlock() {
    memory_use().add(-bytes);
    if (!host) std::free(address);
  }
};

// Raises the error of CUDA's allocator, with its message.
static void check_free_memory(int64_t bytes) {
  int64_t free = device_memory() - memory_use().now();
  TORCH_CHECK_WITH(OutOfMemoryError, bytes <= free, "CUDA out of memory. Tried to allocate ",
                   mebibytes(bytes), ". GPU ", int(Guard::getDeviceIndex()),
                   " has a total capacity of ", mebibytes(device_memory()), " of which ",
                   mebibytes(free), " is free. Including non-PyTorch memory, this process has ",
                   mebibytes(memory_use().now()), " memory in use.");
}

static void free_device(void* block) { delete static_cast<DeviceBlock*>(block); }

struct DeviceAllocator final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    check_free_memory(static_cast<int64_t>(bytes));
    auto* block = new DeviceBlock(std::nullopt, ::allocate(bytes), static_cast<int64_t>(bytes));
    return {block->address, block, &free_device, current_device()};
  }
  void copy_data(void* to, const void* from, std::size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }
};

static DeviceAllocator device_allocator;
static bool allocator_set = (c10::SetAllocator(DeviceType::CUDA, &device_allocator), true);

// ---- Hooks: what the rest of torch asks about CUDA -----------------------------------------

namespace at {
struct CUDAHooks final : CUDAHooksInterface {
  explicit CUDAHooks(CUDAHooksArgs) {}
  void init() const override {}
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasCUDA() const override { return true; }
  bool hasPrimaryContext(DeviceIndex) const override { return true; }
  DeviceIndex deviceCount() const override { return kNumDevices; }
  int getNumGPUs() const override { return kNumDevices; }
  DeviceIndex getCurrentDevice() const override { return Guard::getDeviceIndex(); }
  DeviceIndex current_device() const override { return Guard::getDeviceIndex(); }
  void setCurrentDevice(DeviceIndex index) const override { Guard::setDeviceIndex(index); }
  DeviceIndex exchangeDevice(DeviceIndex index) const override {
    auto previous = getCurrentDevice();
    setCurrentDevice(index);
    return previous;
  }
  DeviceIndex maybeExchangeDevice(DeviceIndex index) const override {
    return exchangeDevice(index);
  }
  bool isPinnedPtr(const void* data) const override { return is_pinned(data); }
  c10::Allocator* getPinnedMemoryAllocator() const override {
    static PinnedAllocator allocator;
    return &allocator;
  }
  c10::Allocator* getCUDADeviceAllocator() const override { return &device_allocator; }
};
REGISTER_CUDA_HOOKS(CUDAHooks)
}  // namespace at

// ---- The interface for Python (ctypes) ------------------------------------------------------

static void (*listener)(const char* event, int64_t bytes) = nullptr;

static void report(const std::string& event, int64_t bytes = 0) {
  if (listener) listener(event.c_str(), bytes);
}

extern "C" {
void stand_in_listen(void (*function)(const char*, int64_t)) { listener = function; }
void stand_in_set_device(int index) { Guard::setDeviceIndex(index); }
int stand_in_get_device() { return Guard::getDeviceIndex(); }
int64_t stand_in_memory() { return memory_use().now(); }
int64_t stand_in_total_memory() { return device_memory(); }
int64_t stand_in_peak_memory() { return memory_use().peak(); }
void stand_in_reset_peak_memory() { memory_use().reset_peak(); }
}

// ---- Conversion of tensors between devices, without a copy ----------------------------------

static void drop_storage(void* storage) { delete static_cast<c10::Storage*>(storage); }

static c10::DataPtr share(const c10::Storage& storage, Device device) {
  void* data = storage.mutable_data();
  if (device.is_cpu()) return {data, new c10::Storage(storage), &drop_storage, device};
  check_free_memory(static_cast<int64_t>(storage.nbytes()));
  auto* block = new DeviceBlock(storage, data, static_cast<int64_t>(storage.nbytes()));
  return {data, block, &free_device, device};
}

// Returns a tensor on `device` that shares the memory of `tensor`.
static Tensor as_device(const Tensor& tensor, Device device) {
  c10::Allocator* allocator =
      device.is_cpu() ? c10::GetCPUAllocator() : static_cast<c10::Allocator*>(&device_allocator);
  c10::Storage storage(c10::Storage::use_byte_size_t(), tensor.storage().nbytes(),
                       share(tensor.storage(), device), allocator, /*resizable=*/true);
  auto key = device.is_cpu() ? c10::DispatchKey::CPU : c10::DispatchKey::CUDA;
  auto result = at::detail::make_tensor<c10::TensorImpl>(
      std::move(storage), c10::DispatchKeySet(key), tensor.dtype());
  auto* implementation = result.unsafeGetTensorImpl();
  implementation->set_sizes_and_strides(tensor.sizes(), tensor.strides(),
                                        tensor.storage_offset());
  if (tensor.unsafeGetTensorImpl()->is_wrapped_number()) implementation->set_wrapped_number(true);
  return result;
}

// Returns a view of the memory of `base` with the type, sizes and strides of `view`.
static Tensor view_of(const Tensor& base, const Tensor& view) {
  auto keys = base.key_set();
  for (auto key : {c10::DispatchKey::Conjugate, c10::DispatchKey::Negative,
                   c10::DispatchKey::Python, c10::DispatchKey::PythonTLSSnapshot})
    keys = keys.remove(key);
  auto result = at::detail::make_tensor<c10::TensorImpl>(
      c10::TensorImpl::VIEW, c10::Storage(base.storage()), keys, view.dtype());
  result.unsafeGetTensorImpl()->set_sizes_and_strides(view.sizes(), view.strides(),
                                                      view.storage_offset());
  return result;
}

// ---- The fallback: one operation on device tensors ------------------------------------------

// Operations that accept tensors of the CPU beside those of the device.
static const std::set<std::string> kMixing = {
    "aten::copy_",          "aten::_copy_from",
    "aten::_to_copy",       "aten::index",
    "aten::index_put_",     "aten::_index_put_impl_",
    "aten::index_put",      "aten::set_"};
static const std::set<std::string> kIndexing = {
    "aten::index", "aten::index_put_", "aten::_index_put_impl_", "aten::index_put"};
// Operations after which the host needs a value, or a size, from the device.
static const std::set<std::string> kWaiting = {
    "aten::_local_scalar_dense", "aten::nonzero",      "aten::nonzero_numpy",
    "aten::equal",               "aten::is_nonzero",   "aten::masked_select",
    "aten::_unique",             "aten::_unique2",     "aten::unique_dim",
    "aten::unique_consecutive",  "aten::bincount",     "aten::argwhere",
    "aten::_linalg_eigh",        "aten::_linalg_svd",  "aten::linalg_eig"};

static bool is_mask(const Tensor& tensor) {
  return tensor.scalar_type() == at::kBool || tensor.scalar_type() == at::kByte;
}

// A tensor argument, the CPU tensor that the kernel gets for it, and that tensor's memory.
struct Lowered {
  Tensor device, host;
  const void* data;
  size_t bytes;
};

class Call {
 public:
  Call(const c10::OperatorHandle& op, Stack* stack)
      : op_(op), schema_(op.schema()), stack_(*stack), device_(current_device()) {
    first_ = stack_.size() - schema_.arguments().size();
  }

  void run() {
    lower_arguments();
    report_copies();
    report_waits();
    refuse_mixed_devices();
    run_kernel();
    for (auto& argument : lowered_) update_resized(argument);
    raise_results();
  }

 private:
  const std::string& name() const { return schema_.name(); }
  IValue& argument(size_t index) { return stack_[first_ + index]; }

  void lower_arguments() {
    for (size_t index = 0; index < schema_.arguments().size(); ++index) {
      auto& value = argument(index);
      if (value.isTensor()) {
        operands_.push_back(value.toTensor());
        value = lower(value.toTensor());
      } else if (value.isTensorList()) {
        value = lower_list(value.toTensorVector());
      } else if (value.isOptionalTensorList()) {
        value = lower_optional_list(value.toOptionalTensorList());
      } else if (value.isDevice() && value.toDevice().is_cuda()) {
        if (value.toDevice().has_index()) device_ = value.toDevice();
        value = IValue(Device(DeviceType::CPU));
      } else if (schema_.arguments()[index].name() == "non_blocking" && value.isBool()) {
        non_blocking_ = value.toBool();
      }
    }
  }

  Tensor lower(const Tensor& tensor) {
    if (!tensor.defined()) return tensor;
    if (!tensor.is_cuda()) {
      if (tensor.dim() > 0) has_host_array_ = true;  // a GPU accepts scalars of the CPU
      return tensor;
    }
    if (has_device_tensor_ && tensor.device() != device_) mixes_gpus_ = true;
    has_device_tensor_ = true;
    device_ = tensor.device();
    Tensor host = as_device(tensor, Device(DeviceType::CPU));
    lowered_.push_back({tensor, host, host.storage().data(), host.storage().nbytes()});
    return host;
  }

  IValue lower_list(const std::vector<Tensor>& tensors) {
    std::vector<Tensor> result;
    for (const Tensor& tensor : tensors) result.push_back(lower(tensor));
    return IValue(c10::List<Tensor>(result));
  }

  // Lists of optional tensors are indices.
  IValue lower_optional_list(const c10::List<std::optional<Tensor>>& tensors) {
    c10::List<std::optional<Tensor>> result;
    for (const std::optional<Tensor>& tensor : tensors.vec()) {
      if (tensor && tensor->defined()) {
        if (is_mask(*tensor)) indexes_by_mask_ = true;
        if (!tensor->is_cuda()) indexes_by_host_array_ = true;
      }
      result.push_back(tensor ? std::optional<Tensor>(lower(*tensor)) : std::nullopt);
    }
    return IValue(result);
  }

  void report_copies() {
    if (name() != "aten::copy_" || operands_.size() < 2) return;
    if (operands_[0].is_cuda() == operands_[1].is_cuda()) return;
    bool to_device = operands_[0].is_cuda();
    const Tensor& host = operands_[to_device ? 1 : 0];
    bool pinned = host.numel() == 0 || is_pinned(host.storage().data());
    report(std::string("copy to ") + (to_device ? "device" : "host") +
               (pinned ? ", pinned" : ", unpinned"),
           static_cast<int64_t>(host.nbytes()));
    if (!non_blocking_) report("wait: blocking copy");
  }

  void report_waits() {
    if (kWaiting.count(name())) report("wait: " + name());
    if (name() == "aten::repeat_interleave" && schema_.overload_name() == "Tensor")
      report("wait: " + name());
    if (kIndexing.count(name()) && indexes_by_mask_) report("wait: index by a mask");
    if (kIndexing.count(name()) && has_device_tensor_ && indexes_by_host_array_)
      report("wait: index by a tensor on the CPU");
  }

  void refuse_mixed_devices() const {
    if (kMixing.count(name())) return;
    const char* found = has_device_tensor_ && has_host_array_ ? "cuda and cpu"
                        : mixes_gpus_                         ? "two GPUs"
                                                              : nullptr;
    TORCH_CHECK(!found, "Expected all tensors to be on the same device, but found ", found, " (",
                name(), ")");
  }

  void run_kernel() {
    auto narrow = widen_softmax();
    op_.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), &stack_);
    if (narrow) stack_.back() = IValue(stack_.back().toTensor().to(*narrow));
  }

  // A GPU's softmax can convert to and from float32 itself; the CPU's refuses to. Converts the
  // arguments, and returns the type to which the result must be converted.
  std::optional<at::ScalarType> widen_softmax() {
    if (name() == "aten::_softmax" || name() == "aten::_log_softmax") {
      if (argument(2).toBool()) argument(0) = IValue(argument(0).toTensor().to(at::kFloat));
      argument(2) = IValue(false);
    }
    if (name() != "aten::_softmax_backward_data" && name() != "aten::_log_softmax_backward_data")
      return std::nullopt;
    auto wide = argument(0).toTensor().scalar_type();
    auto wanted = argument(3).toScalarType();
    argument(3) = IValue(wide);
    return wanted == wide ? std::nullopt : std::optional<at::ScalarType>(wanted);
  }

  // The kernel may have resized an `out` argument.
  static void update_resized(Lowered& argument) {
    auto* target = argument.device.unsafeGetTensorImpl();
    const auto& storage = argument.host.storage();
    if (storage.data() != argument.data || storage.nbytes() != argument.bytes)
      target->set_storage_keep_dtype(
          as_device(argument.host, argument.device.device()).storage());
    target->set_sizes_and_strides(argument.host.sizes(), argument.host.strides(),
                                  argument.host.storage_offset());
  }

  void raise_results() {
    auto count = schema_.returns().size();
    for (size_t index = stack_.size() - count; index < stack_.size(); ++index) {
      auto& value = stack_[index];
      if (value.isTensor()) {
        value = raise(value.toTensor());
      } else if (value.isTensorList()) {
        std::vector<Tensor> raised;
        for (const Tensor& tensor : value.toTensorVector()) raised.push_back(raise(tensor));
        value = IValue(c10::List<Tensor>(raised));
      }
    }
  }

  // Returns the device tensor for a result: an argument, a view of one, or a new tensor.
  Tensor raise(const Tensor& tensor) const {
    if (!tensor.defined() || !tensor.device().is_cpu()) return tensor;
    for (auto& argument : lowered_)
      if (tensor.is_same(argument.host)) return argument.device;
    for (auto& argument : lowered_)
      if (tensor.storage().nbytes() && tensor.storage().is_alias_of(argument.host.storage()))
        return view_of(argument.device, tensor);
    bool in_place_on_host = kMixing.count(name()) && !operands_.empty() &&
                            tensor.is_same(operands_[0]);
    return in_place_on_host ? tensor : as_device(tensor, device_);
  }

  const c10::OperatorHandle& op_;
  const c10::FunctionSchema& schema_;
  Stack& stack_;
  size_t first_;
  Device device_;  // of the results
  std::vector<Tensor> operands_;  // the tensor arguments before they were lowered
  std::vector<Lowered> lowered_;
  bool has_host_array_ = false, has_device_tensor_ = false, mixes_gpus_ = false;
  bool indexes_by_mask_ = false, indexes_by_host_array_ = false, non_blocking_ = false;
};

static void fallback(const c10::OperatorHandle& op, c10::DispatchKeySet, Stack* stack) {
  Call(op, stack).run();
}

TORCH_LIBRARY_IMPL(_, CUDA, library) {
  library.fallback(torch::CppFunction::makeFromBoxedFunction<&fallback>());
}

// Composite operations that would look for CUDA's own kernels.
TORCH_LIBRARY_IMPL(aten, CUDA, library) {
  for (const char* name :
       {"copy_", "_softmax_backward_data", "_log_softmax_backward_data", "convolution",
        "convolution_overrideable", "convolution_backward", "convolution_backward_overrideable"})
    library.impl(name, torch::CppFunction::makeFromBoxedFunction<&fallback>());
}

static Tensor on_host(const Tensor& tensor) {
  return tensor.is_cuda() ? as_device(tensor, Device(DeviceType::CPU)) : tensor;
}
TORCH_LIBRARY(gpu_stand_in, library) { library.def("on_host(Tensor tensor) -> Tensor"); }
TORCH_LIBRARY_IMPL(gpu_stand_in, CompositeExplicitAutograd, library) {
  library.impl("on_host", &on_host);
}
