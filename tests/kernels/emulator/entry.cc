// One kernel, callable with an array of pointers to its arguments as cudaLaunchKernel is. KERNEL
// and SOURCE are given; CLUSTER is a number or a constant of the source.
#include "prelude.cuh"
#include SOURCE

namespace {

template <int... I>
struct Indices {};
template <int N, int... I>
struct Count : Count<N - 1, N - 1, I...> {};
template <int... I>
struct Count<0, I...> {
  using Type = Indices<I...>;
};

void** given;

template <class T>
struct Plain {
  using Type = T;
};
template <class T>
struct Plain<const T> {
  using Type = T;
};

template <class... A, int... I>
void call(void (*kernel)(A...), Indices<I...>) {
  kernel(*static_cast<typename Plain<A>::Type*>(given[I])...);
}

template <class... A>
void call(void (*kernel)(A...)) {
  call(kernel, typename Count<sizeof...(A)>::Type());
}

template <class... A>
constexpr int count(void (*)(A...)) {
  return sizeof...(A);
}

}  // namespace

extern "C" const char* machine_run(void (*call)(), const machine::Launch* wanted);

extern "C" const char* run_kernel(machine::Launch* wanted, void** arguments, int how_many) {
  if (how_many != count(KERNEL)) return "a wrong number of arguments";
  given = arguments;
  wanted->cluster = CLUSTER;
  return machine_run([] { call(KERNEL); }, wanted);
}
