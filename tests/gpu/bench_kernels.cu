// Times every kernel on the card beside ceilings measured in the same call, one JSON object a line:
//     bench_kernels [--list] [--smallest] [--seconds N] [--only WORD]
// --list names the cases, with the sizes that a peer needs to do the same work, and needs no card; --smallest
// takes the sizes of the tests, one run of each and no products: for compute-sanitizer. A time is the median
// of several runs between events of the card, each with caches that hold other data.
#include "tests/gpu/bench.cuh"

extern "C" {
#include "kernels/cuda/card.h"
#include "kernels/cuda/device_query.h"
}

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

constexpr size_t CACHE_BYTES = size_t{256} << 20,
                 CACHE_BYTES_SMALLEST = 4096; // the first: more than any cache
constexpr double SECONDS_OF_A_CASE = 0.25;
constexpr int RUNS_MIN = 5, RUNS_MAX = 30;

void must(cudaError_t error, const char *what) {
    if (error == cudaSuccess)
        return;
    fflush(stdout);
    fprintf(stderr, "bench_kernels: %s failed: %s\n", what, cudaGetErrorString(error));
    exit(1);
}

void must(status result) {
    if (result == STATUS_OK)
        return;
    fprintf(stderr, "bench_kernels: %s\n", status_message());
    exit(1);
}

double seconds_now() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

class stopwatch {
  public:
    stopwatch(cudaStream_t stream_, bool smallest_)
        : stream(stream_), smallest(smallest_), cache_bytes(smallest ? CACHE_BYTES_SMALLEST : CACHE_BYTES) {
        for (auto &pair : events)
            for (cudaEvent_t &event : pair)
                must(cudaEventCreate(&event), "cudaEventCreate");
        must(cudaMalloc(&cache, cache_bytes), "cudaMalloc");
    }
    ~stopwatch() {
        for (auto &pair : events)
            for (cudaEvent_t event : pair)
                cudaEventDestroy(event);
        cudaFree(cache);
    }
    stopwatch(const stopwatch &) = delete;
    stopwatch &operator=(const stopwatch &) = delete;

    // The median time of a run in milliseconds, in *milliseconds.
    cudaError_t measure(const bench::work &run, double *milliseconds) {
        if (smallest)
            return several(run, 1, milliseconds);
        double first = 0.0;
        for (int warm_up = 0; warm_up < 2; warm_up++) {
            const cudaError_t error = several(run, 1, &first);
            if (error != cudaSuccess)
                return error;
        }
        const double wanted = SECONDS_OF_A_CASE * 1e3 / (first > 1e-3 ? first : 1e-3);
        return several(run, std::clamp(static_cast<int>(wanted), RUNS_MIN, RUNS_MAX), milliseconds);
    }

  private:
    cudaError_t several(const bench::work &run, int runs, double *milliseconds) {
        for (int i = 0; i < runs; i++) {
            must(cudaMemsetAsync(cache, i, cache_bytes, stream), "cudaMemsetAsync");
            must(cudaEventRecord(events[i][0], stream), "cudaEventRecord");
            const cudaError_t error = run(stream);
            if (error != cudaSuccess)
                return error;
            must(cudaEventRecord(events[i][1], stream), "cudaEventRecord");
        }
        const cudaError_t error = cudaStreamSynchronize(stream);
        if (error != cudaSuccess)
            return error;
        std::vector<float> times(static_cast<size_t>(runs));
        for (int i = 0; i < runs; i++)
            must(cudaEventElapsedTime(&times[static_cast<size_t>(i)], events[i][0], events[i][1]),
                 "cudaEventElapsedTime");
        std::sort(times.begin(), times.end());
        *milliseconds = static_cast<double>(times[times.size() / 2]);
        return cudaSuccess;
    }

    cudaStream_t stream;
    bool smallest;
    size_t cache_bytes;
    cudaEvent_t events[RUNS_MAX][2];
    void *cache = nullptr;
};

// In units a second, of the same kind as amount.
struct ceilings {
    double copy, matrix, matrix_tf32;
};

double ceiling_of(const ceilings &all, bench::ceiling limit) {
    switch (limit) {
    case bench::ceiling::COPY:
        return all.copy;
    case bench::ceiling::MATRIX:
        return all.matrix;
    case bench::ceiling::MATRIX_TF32:
        return all.matrix_tf32;
    case bench::ceiling::NONE:
        break;
    }
    return 0.0;
}

void print_result(const bench::kernel_case &c, double milliseconds, const ceilings &all) {
    const bool is_bytes = c.limit == bench::ceiling::COPY;
    const double scale = is_bytes ? 1e9 : 1e12, rate = c.amount / (milliseconds * 1e-3),
                 ceiling = ceiling_of(all, c.limit);
    printf("{\"name\": \"%s\", \"config\": \"%s\", \"milliseconds\": %.5g, \"value\": %.6g, \"unit\": "
           "\"%s\", \"amount\": %.6g, \"formula\": \"%s\"",
           c.name, bench::config_of(c).c_str(), milliseconds, rate / scale, is_bytes ? "GB/s" : "TFLOP/s",
           c.amount, c.formula);
    if (ceiling > 0.0)
        printf(", \"ceiling\": %.6g, \"ratio_to_ceiling\": %.4f", ceiling / scale, rate / ceiling);
    printf("}\n");
    fflush(stdout);
}

void print_unmeasured(const bench::kernel_case &c, const char *why) {
    printf("{\"name\": \"%s\", \"config\": \"%s\", \"not_run\": \"%s\"}\n", c.name,
           bench::config_of(c).c_str(), why);
    fflush(stdout);
}

void print_name(const bench::kernel_case &c) {
    printf("{\"name\": \"%s\", \"config\": \"%s\", \"storage\": \"%s\"", c.name, bench::config_of(c).c_str(),
           c.storage);
    for (const auto &[name, value] : c.shape)
        printf(", \"%s\": %lld", name, static_cast<long long>(value));
    printf("}\n");
}

// False where the card is lost, after which nothing can be measured.
bool run_case(const bench::kernel_case &c, stopwatch *watch, cudaStream_t stream, const ceilings &all,
              double *milliseconds) {
    bench::memory memory(1);
    const bench::work run = c.prepare(memory);
    must(cudaDeviceSynchronize(), "filling the buffers"); // which is done on another stream
    const cudaError_t error = watch->measure(run, milliseconds);
    if (error == cudaSuccess) {
        print_result(c, *milliseconds, all);
        return true;
    }
    print_unmeasured(c, cudaGetErrorString(error));
    cudaGetLastError();
    return cudaStreamSynchronize(stream) == cudaSuccess;
}

ceilings measure_ceilings(stopwatch *watch, cudaStream_t stream, cublas *products, bool smallest) {
    ceilings all = {};
    const int64_t bytes = smallest ? int64_t{1} << 20 : int64_t{2} << 30, size = smallest ? 64 : 8192;
    const bench::kernel_case copy = {"copy",
                                     "f32",
                                     {{"bytes", bytes}},
                                     bench::ceiling::COPY,
                                     2.0 * static_cast<double>(bytes),
                                     "cudaMemcpyAsync within the card, bytes read and written",
                                     [=](bench::memory &memory) -> bench::work {
                                         const float *from = memory.random<float>(bytes / 4);
                                         float *to = memory.empty<float>(bytes / 4);
                                         return [=](cudaStream_t s) {
                                             return cudaMemcpyAsync(to, from, static_cast<size_t>(bytes),
                                                                    cudaMemcpyDeviceToDevice, s);
                                         };
                                     }};
    double milliseconds = 0.0;
    if (!run_case(copy, watch, stream, all, &milliseconds))
        exit(1);
    all.copy = copy.amount / (milliseconds * 1e-3);
    for (const char *storage : {"bf16", "f32"}) {
        const bench::kernel_case product = bench::square_product(size, storage, products);
        if (products == nullptr || !run_case(product, watch, stream, all, &milliseconds))
            continue;
        double *rate = storage[0] == 'b' ? &all.matrix : &all.matrix_tf32;
        *rate = product.amount / (milliseconds * 1e-3);
    }
    return all;
}

bench::cases all_cases(const bench::sizes &sizes, cublas *products, bool has_products) {
    bench::cases all;
    bench::add_attention_cases(&all, sizes);
    bench::add_token_cases(&all, sizes);
    bench::add_update_cases(&all, sizes);
    bench::add_row_cases(&all, sizes);
    if (has_products)
        bench::add_product_cases(&all, sizes, products);
    return all;
}

} // namespace

int main(int argc, char **argv) {
    bool list = false, smallest = false;
    double seconds = 1e9;
    const char *only = "";
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "--list") == 0)
            list = true;
        else if (strcmp(argv[i], "--smallest") == 0)
            smallest = true;
        else if (strcmp(argv[i], "--seconds") == 0 && i + 1 < argc)
            seconds = atof(argv[++i]);
        else if (strcmp(argv[i], "--only") == 0 && i + 1 < argc)
            only = argv[++i];
        else {
            fprintf(stderr, "usage: bench_kernels [--list] [--smallest] [--seconds N] [--only WORD]\n");
            return 2;
        }
    const auto sizes_of = [=](int multiprocessors) {
        return smallest ? bench::smallest_sizes() : bench::medium_sizes(multiprocessors);
    };
    if (list) {
        for (const bench::kernel_case &c : all_cases(sizes_of(132), nullptr, true))
            if (strstr(c.name, only) != nullptr)
                print_name(c);
        return 0;
    }
    const double start = seconds_now();
    if (runner::why_not() != nullptr) {
        printf("skipped: %s\n", runner::why_not());
        return 77;
    }
    card *gpu;
    must(card_open(&gpu, cuda_calls_of_this_build(), 0));
    const cudaStream_t stream = static_cast<cudaStream_t>(card_stream(gpu));
    cublas *products = nullptr;
    if (!smallest && cublas_open(&products, gpu, nullptr) != STATUS_OK)
        fprintf(stderr, "bench_kernels: no products: %s\n", status_message());
    {
        stopwatch watch(stream, smallest);
        const ceilings limits = measure_ceilings(&watch, stream, products, smallest);
        for (const bench::kernel_case &c :
             all_cases(sizes_of(card_multiprocessors(gpu)), products, products != nullptr)) {
            double milliseconds = 0.0;
            if (strstr(c.name, only) == nullptr)
                continue;
            if (seconds_now() - start > seconds)
                print_unmeasured(c, "no time was left");
            else if (!run_case(c, &watch, stream, limits, &milliseconds)) {
                fprintf(stderr, "bench_kernels: the card is lost after %s\n", c.name);
                return 1;
            }
        }
    }
    cublas_close(products);
    card_close(gpu);
    return 0;
}
