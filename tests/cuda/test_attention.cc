// Attention on the card against the CPU operators. Inputs are values of bf16, so that the kernels' products
// start from what the CPU sees; what is left is the rounding of probabilities and of their gradients to bf16,
// half a unit in the last place of 8 bits each, and that of outputs stored as bf16. The bound of each element
// is that rounding of every term of its sum, added up in double.
#include "tests/cuda/check.h"

#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/rotary.cuh"

using namespace cuda_kernels;
using namespace check;

namespace {

constexpr double HALF_UNIT = 0x1p-8; // the most that rounding to 8 bits changes a value, relative to it
constexpr double SMALL = 2e-6;       // of f32 sums, relative to the sum of absolute terms

void must(status result) {
    if (result != STATUS_OK)
        fail_msg("%s", status_message());
}

// Random values of bf16 in (- size, size).
std::vector<float> bf16_values(size_t count, float size, uint64_t salt) {
    philox_stream numbers = random_numbers(salt);
    return random_values<bf16>(&numbers, static_cast<int64_t>(count), size);
}

std::vector<float> rounded_to_bf16(const std::vector<float> &x) {
    return plain(stored<bf16>(x));
}

struct test_shape {
    int batch, sequence, heads, head_dim;
    bool causal;
    std::vector<int32_t> lengths; // empty: all keys exist
};

struct attention_case {
    test_shape shape;
    attention_sizes sizes;
    size_t rows, width;
    std::vector<float> qkv, dout; // values of bf16
    std::vector<float> out, log_sum, dqkv, out_bound, dqkv_bound;
};

std::string name_of(const test_shape &s) {
    return "batch " + std::to_string(s.batch) + ", sequence " + std::to_string(s.sequence) + ", heads " +
           std::to_string(s.heads) + " x " + std::to_string(s.head_dim) + (s.causal ? ", causal" : "");
}

attention_shape cpu_shape(const test_shape &s, const float *cosine, const float *sine) {
    attention_shape shape = {};
    shape.batch = s.batch;
    shape.sequence = s.sequence;
    shape.heads = s.heads;
    shape.head_dim = s.head_dim;
    shape.causal = s.causal;
    shape.lengths = s.lengths.empty() ? nullptr : s.lengths.data();
    shape.cosine = cosine;
    shape.sine = sine;
    return shape;
}

// What rounding p and ds to 8 bits can do to every element, from the definition, in double.
void find_bounds(attention_case *c, const std::vector<float> &out) {
    const test_shape &s = c->shape;
    const size_t dim = static_cast<size_t>(s.head_dim), stride = 3 * c->width;
    c->out_bound.assign(c->rows * c->width, 0.0f);
    c->dqkv_bound.assign(c->rows * stride, 0.0f);
    for (int b = 0; b < s.batch; b++)
        for (int h = 0; h < s.heads; h++)
            for (int i = 0; i < s.sequence; i++) {
                const size_t row = static_cast<size_t>(b) * static_cast<size_t>(s.sequence) +
                                   static_cast<size_t>(i),
                             column = static_cast<size_t>(h) * dim;
                const float *q = &c->qkv[row * stride + column], *dout = &c->dout[row * c->width + column],
                            *o = &out[row * c->width + column];
                const int limit = s.causal ? i + 1 : s.lengths.empty() ? s.sequence : s.lengths[(size_t)b];
                const double log_sum = c->log_sum[(static_cast<size_t>(b) * static_cast<size_t>(s.heads) +
                                                   static_cast<size_t>(h)) *
                                                      static_cast<size_t>(s.sequence) +
                                                  static_cast<size_t>(i)];
                double delta = 0.0;
                for (size_t d = 0; d < dim; d++)
                    delta += static_cast<double>(dout[d]) * o[d];
                const double scale = 1.0 / std::sqrt(static_cast<double>(s.head_dim));
                for (int j = 0; j < limit; j++) {
                    const size_t other = (row - static_cast<size_t>(i) + static_cast<size_t>(j)) * stride;
                    const float *k = &c->qkv[other + c->width + column],
                                *v = &c->qkv[other + 2 * c->width + column];
                    double dot = 0.0, dp = 0.0, size = std::fabs(delta);
                    for (size_t d = 0; d < dim; d++) {
                        dot += static_cast<double>(q[d]) * k[d];
                        dp += static_cast<double>(dout[d]) * v[d];
                        size += std::fabs(static_cast<double>(dout[d]) * v[d]);
                    }
                    const double p = std::exp(dot * scale - log_sum), ds = p * std::fabs(dp - delta);
                    // Differences of near equal numbers keep the error of the larger ones.
                    const double error = scale * (ds * HALF_UNIT + 8.0 * SMALL * p * size);
                    for (size_t d = 0; d < dim; d++) {
                        c->out_bound[row * c->width + column + d] +=
                            static_cast<float>(p * std::fabs(v[d]) * (HALF_UNIT + 8.0 * SMALL));
                        c->dqkv_bound[row * stride + column + d] +=
                            static_cast<float>(error * std::fabs(k[d]));
                        c->dqkv_bound[other + c->width + column + d] +=
                            static_cast<float>(error * std::fabs(q[d]));
                        c->dqkv_bound[other + 2 * c->width + column + d] +=
                            static_cast<float>(p * std::fabs(dout[d]) * (HALF_UNIT + 8.0 * SMALL));
                    }
                }
            }
}

// The CPU's answers. Positions are not rotated: cosine 1, sine 0.
attention_case make_case(const test_shape &s, uint64_t seed) {
    attention_case c;
    c.shape = s;
    c.rows = static_cast<size_t>(s.batch) * static_cast<size_t>(s.sequence);
    c.width = static_cast<size_t>(s.heads) * static_cast<size_t>(s.head_dim);
    c.qkv = bf16_values(c.rows * 3 * c.width, 1.5f, seed);
    c.dout = bf16_values(c.rows * c.width, 1.0f, seed + 1);
    const size_t table = static_cast<size_t>(s.sequence) * static_cast<size_t>(s.head_dim) / 2;
    const std::vector<float> cosine(table, 1.0f), sine(table, 0.0f);
    device *d;
    must(device_create(&d, 1));
    const attention_shape shape = cpu_shape(s, cosine.data(), sine.data());
    std::vector<float> scratch(attention_scratch_floats(d, &shape)), qkv = c.qkv;
    c.out.assign(c.rows * c.width, NAN);
    c.log_sum.assign(c.rows * static_cast<size_t>(s.heads), NAN);
    c.dqkv.assign(c.rows * 3 * c.width, NAN);
    op_attention(d, &shape, as_activations(qkv.data()), as_activations(c.out.data()), c.log_sum.data(),
                 scratch.data());
    // Both backward passes start from the same outputs, which are stored as bf16 or not.
    const std::vector<float> given = rounded_to_bf16(c.out);
    op_attention_backward(d, &shape, as_activations(qkv.data()), as_activations(given.data()),
                          c.log_sum.data(), as_activations(c.dout.data()), as_activations(c.dqkv.data()),
                          scratch.data());
    device_destroy(d);
    find_bounds(&c, given);
    c.sizes = {s.batch, s.sequence, s.heads, s.head_dim, s.causal, nullptr};
    return c;
}

template <typename T>
void compare(const char *what, const test_shape &s, const std::vector<float> &found,
             const std::vector<float> &wanted, const std::vector<float> &bound) {
    assert_int_equal(found.size(), wanted.size());
    for (size_t i = 0; i < found.size(); i++) {
        const double error = std::fabs(static_cast<double>(found[i]) - wanted[i]),
                     allowed = static_cast<double>(bound[i]) + 1e-7 +
                               (sizeof(T) == 2 ? std::fabs(wanted[i]) * HALF_UNIT : 0.0);
        record(named<T>(what), error, allowed);
        if (!(error <= allowed))
            fail_msg("%s of %s, element %zu: %g where %g is wanted; off by %g, allowed is %g", what,
                     name_of(s).c_str(), i, static_cast<double>(found[i]), static_cast<double>(wanted[i]),
                     error, allowed);
    }
}

template <typename T>
void close_to(const char *what, const test_shape &s, const std::vector<float> &found,
              const std::vector<float> &wanted, double relative, double absolute) {
    assert_int_equal(found.size(), wanted.size());
    for (size_t i = 0; i < found.size(); i++) {
        const double error = std::fabs(static_cast<double>(found[i]) - wanted[i]),
                     allowed = absolute + relative * std::fabs(static_cast<double>(wanted[i]));
        record(named<T>(what), error, allowed);
        if (!(error <= allowed))
            fail_msg("%s of %s, element %zu: %.9g where %.9g is wanted", what, name_of(s).c_str(), i,
                     static_cast<double>(found[i]), static_cast<double>(wanted[i]));
    }
}

template <typename T> void check_training(const attention_case &c) {
    const buffer<int32_t> lengths(c.shape.lengths);
    attention_sizes sizes = c.sizes;
    sizes.lengths = c.shape.lengths.empty() ? nullptr : lengths.data();
    const buffer<T> qkv(stored<T>(c.qkv)), dout(stored<T>(c.dout)), given(stored<T>(rounded_to_bf16(c.out)));
    const buffer<float> log_sums(c.log_sum);
    const int64_t outputs = static_cast<int64_t>(c.out.size()), sums = static_cast<int64_t>(c.log_sum.size());
    // Emulated, long sequences take seconds.
    const int runs = c.shape.sequence > 100 ? 2 : runner::RUNS;
    const auto forward = in_every_order(
        std::make_tuple(poisoned<T>(outputs), poisoned<float>(sums)),
        [&](T *out, float *log_sum) {
            return attention_forward<T>(nullptr, sizes, qkv.data(), out, log_sum);
        },
        runs);
    compare<T>("attention_forward", c.shape, plain(std::get<0>(forward)), c.out, c.out_bound);
    close_to<T>("attention_forward log-sum", c.shape, std::get<1>(forward), c.log_sum, 0.0, 1e-5);
    const auto backward = in_every_order(
        std::make_tuple(poisoned<T>(3 * outputs), poisoned<float>(sums)),
        [&](T *dqkv, float *delta) {
            return attention_backward<T>(nullptr, sizes, qkv.data(), given.data(), log_sums.data(),
                                         dout.data(), dqkv, delta);
        },
        runs);
    compare<T>("attention_backward", c.shape, plain(std::get<0>(backward)), c.dqkv, c.dqkv_bound);
    // A forward pass for which nobody keeps the log-sums.
    const auto again = once(std::make_tuple(poisoned<T>(outputs)), [&](T *out) {
        return attention_forward<T>(nullptr, sizes, qkv.data(), out, nullptr);
    });
    assert_true(same_bytes(std::get<0>(again), std::get<0>(forward)));
}

void test_training(void **) {
    static const test_shape shapes[] = {
        {1, 1, 1, 16, true, {}},
        {2, 17, 3, 32, true, {}},
        {1, 63, 1, 64, true, {}},
        {1, 64, 2, 64, true, {}},
        {1, 65, 1, 128, true, {}},
        {1, 130, 2, 48, true, {}},
        {1, 197, 1, 64, true, {}},
        {1, 129, 1, 128, true, {}},
        {1, 1, 2, 64, false, {}},
        {1, 70, 1, 64, false, {}},
        {3, 33, 2, 32, false, {1, 33, 20}},
        {2, 140, 1, 128, false, {64, 129}},
        {2, 150, 1, 96, false, {140, 3}},
    };
    uint64_t seed = 5;
    for (const test_shape &s : shapes) {
        const attention_case c = make_case(s, seed += 2);
        check_training<float>(c);
        check_training<bf16>(c);
    }
}

void make_rotary(int positions, int head_dim, bool turn, std::vector<float> *cosine,
                 std::vector<float> *sine) {
    const size_t count = static_cast<size_t>(positions) * static_cast<size_t>(head_dim) / 2;
    cosine->assign(count, 1.0f);
    sine->assign(count, 0.0f);
    if (!turn)
        return;
    device *d;
    must(device_create(&d, 1));
    op_rotary_table(d, positions, head_dim, cosine->data(), sine->data());
    device_destroy(d);
}

// The kernels for short sequences compute in f32, so only storage is rounded: as bf16 the test does not turn
// positions, and outputs may be half a unit off.
template <typename T> void check_short(const test_shape &s, uint64_t seed) {
    constexpr bool is_bf16 = sizeof(T) == 2;
    const double rounding = is_bf16 ? HALF_UNIT : 0.0;
    const size_t rows = static_cast<size_t>(s.batch) * static_cast<size_t>(s.sequence),
                 width = static_cast<size_t>(s.heads) * static_cast<size_t>(s.head_dim);
    std::vector<float> cosine, sine, qkv = bf16_values(rows * 3 * width, 1.5f, seed),
                                     dout = bf16_values(rows * width, 1.0f, seed + 1), out(rows * width, NAN),
                                     log_sum(rows * static_cast<size_t>(s.heads), NAN),
                                     dqkv(rows * 3 * width, NAN);
    make_rotary(s.sequence, s.head_dim, !is_bf16, &cosine, &sine);
    device *d;
    must(device_create(&d, 1));
    const attention_shape shape = cpu_shape(s, cosine.data(), sine.data());
    std::vector<float> scratch(attention_scratch_floats(d, &shape)), turned = qkv;
    op_attention(d, &shape, as_activations(turned.data()), as_activations(out.data()), log_sum.data(),
                 scratch.data());
    op_attention_backward(d, &shape, as_activations(turned.data()), as_activations(out.data()),
                          log_sum.data(), as_activations(dout.data()), as_activations(dqkv.data()),
                          scratch.data());
    device_destroy(d);

    const attention_sizes sizes = {s.batch, s.sequence, s.heads, s.head_dim, true, nullptr};
    const buffer<T> given(stored<T>(turned)), gradient(stored<T>(dout));
    const buffer<float> cosines(cosine), sines(sine), log_sums(log_sum);
    const auto forward = in_every_order(
        std::make_tuple(stored<T>(qkv), poisoned<T>(static_cast<int64_t>(rows * width)),
                        poisoned<float>(static_cast<int64_t>(log_sum.size()))),
        [&](T *x, T *y, float *sums) {
            return attention_short_forward<T>(nullptr, sizes, cosines.data(), sines.data(), x, y, sums);
        });
    const auto backward =
        in_every_order(std::make_tuple(poisoned<T>(static_cast<int64_t>(rows * 3 * width))), [&](T *dx) {
            return attention_short_backward<T>(nullptr, sizes, cosines.data(), sines.data(), given.data(),
                                               log_sums.data(), gradient.data(), dx);
        });
    close_to<T>("attention_short_forward rotated", s, plain(std::get<0>(forward)), turned, 0.0, 1e-6);
    close_to<T>("attention_short_forward", s, plain(std::get<1>(forward)), out, rounding, 1e-6);
    close_to<T>("attention_short_forward log-sum", s, std::get<2>(forward), log_sum, 0.0, 3e-6);
    close_to<T>("attention_short_backward", s, plain(std::get<0>(backward)), dqkv, rounding, 1e-5);
}

void test_short(void **) {
    static const test_shape shapes[] = {
        {1, 1, 1, 16, true, {}},   {3, 4, 2, 64, true, {}},  {5, 3, 1, 32, true, {}},
        {2, 16, 1, 128, true, {}}, {7, 13, 3, 48, true, {}}, {1, 2, 5, 128, true, {}},
    };
    uint64_t seed = 101;
    for (const test_shape &s : shapes) {
        check_short<float>(s, seed);
        check_short<bf16>(s, seed += 2);
    }
    const attention_sizes longer = {1, SHORT_SEQUENCE + 1, 1, 16, true, nullptr};
    float x = 0.0f;
    assert_int_equal(attention_short_forward<float>(nullptr, longer, &x, &x, &x, &x, &x),
                     cudaErrorInvalidValue);
}

// One decoded position: both devices' caches hold the same keys and values of the positions before.
struct decode_case {
    test_shape shape; // sequence: capacity
    std::vector<float> cosine, sine;
    std::vector<float> history; // qkv of the positions before, [batch * capacity, 3 * width]
};

template <typename T> void check_position(const decode_case &c, int position, uint64_t seed) {
    constexpr bool is_bf16 = sizeof(T) == 2;
    const test_shape &s = c.shape;
    const size_t heads = static_cast<size_t>(s.heads), dim = static_cast<size_t>(s.head_dim),
                 width = heads * dim, batch = static_cast<size_t>(s.batch),
                 capacity = static_cast<size_t>(s.sequence), before = static_cast<size_t>(position);
    const std::vector<float> row = bf16_values(batch * 3 * width, 1.5f, seed);

    device *d;
    must(device_create(&d, 1));
    const attention_shape shape = cpu_shape(s, c.cosine.data(), c.sine.data());
    std::vector<float> scratch(attention_scratch_floats(d, &shape)),
        cpu_keys(attention_cache_bytes(d, &shape) / sizeof(float)), cpu_values(cpu_keys.size()),
        turned = row, wanted(batch * width, NAN), rows;
    for (size_t b = 0; b < batch; b++)
        rows.insert(rows.end(), c.history.begin() + static_cast<long>(b * capacity * 3 * width),
                    c.history.begin() + static_cast<long>((b * capacity + before) * 3 * width));
    if (position > 0)
        op_attention_fill_cache(d, &shape, position, as_activations(rows.data()),
                                as_activations(cpu_keys.data()), as_activations(cpu_values.data()));
    op_attention_decode(d, &shape, position, as_activations(turned.data()), as_activations(cpu_keys.data()),
                        as_activations(cpu_values.data()), as_activations(wanted.data()), scratch.data());
    device_destroy(d);

    // Positions after this one are poisoned: they must not be read.
    std::vector<T> keys = poisoned<T>(static_cast<int64_t>(batch * width * capacity)), values = keys;
    for (size_t b = 0; b < batch; b++)
        for (size_t h = 0; h < heads; h++)
            for (size_t p = 0; p < before; p++)
                for (size_t i = 0; i < dim; i++) {
                    const size_t from = (b * before + p) * 3 * width + width + h * dim + i,
                                 to = ((b * heads + h) * capacity + p) * dim + i;
                    keys[to] = as<T>(rows[from]);
                    values[to] = as<T>(rows[from + width]);
                }
    const buffer<float> cosines(c.cosine), sines(c.sine);
    const buffer<int32_t> on_device(std::vector<int32_t>(1, position + 1)); // added to -1
    std::vector<T> first;
    for (int splits : {1, 2}) {
        const bool from_device = splits > 1;
        const decode_sizes sizes = {s.batch,
                                    s.heads,
                                    s.head_dim,
                                    s.sequence,
                                    s.sequence,
                                    from_device ? -1 : position,
                                    from_device ? on_device.data() : nullptr};
        const auto found = in_every_order(
            std::make_tuple(stored<T>(row), keys, values, poisoned<T>(static_cast<int64_t>(batch * width)),
                            poisoned<float>(static_cast<int64_t>(decode_partial_floats(sizes)))),
            [&](T *x, T *k, T *v, T *out, float *partial) {
                return attention_decode<T>(nullptr, sizes, splits, cosines.data(), sines.data(), x, k, v, out,
                                           partial);
            });
        const auto &[x, k, v, out, partial] = found;
        close_to<T>("attention_decode query and key", s, plain(x), turned, 0.0, 1e-6);
        close_to<T>("attention_decode", s, plain(out), wanted, is_bf16 ? HALF_UNIT : 0.0, 4e-6);
        for (size_t pair = 0; pair < batch * heads; pair++)
            for (size_t i = 0; i < dim; i++) {
                const size_t to = (pair * capacity + before) * dim + i,
                             from = pair / heads * 3 * width + width + pair % heads * dim + i;
                assert_true(value_of(k[to]) == value_of(x[from]));
                assert_true(value_of(v[to]) == value_of(x[from + width]));
            }
        if (first.empty())
            first = out;
        assert_true(same_bytes(out, first));
    }
}

template <typename T> void check_decode(const test_shape &s, const std::vector<int> &positions) {
    decode_case c;
    c.shape = s;
    make_rotary(s.sequence, s.head_dim, sizeof(T) == 4, &c.cosine, &c.sine);
    c.history = bf16_values(static_cast<size_t>(s.batch * s.sequence * 3 * s.heads * s.head_dim), 1.5f, 31);
    for (int position : positions)
        check_position<T>(c, position, 41 + static_cast<uint64_t>(position));
}

void check_decode(const test_shape &s, const std::vector<int> &positions) {
    check_decode<float>(s, positions);
    check_decode<bf16>(s, positions);
}

void test_decode(void **) {
    check_decode({1, 4, 1, 16, true, {}}, {0, 1, 3});
    check_decode({2, 40, 3, 64, true, {}}, {0, 1, 15, 39});
    check_decode({1, 1100, 1, 128, true, {}}, {511, 512, 1023, 1024, 1099});
    check_decode({2, 600, 1, 48, true, {}}, {513, 599});
    check_decode({2, 530, 2, 32, true, {}}, {0, 200, 529});
}

// Every row of attention_rows against the CPU, and with the bits of attention_decode at that position.
template <typename T>
void check_rows(const test_shape &s, int longest, const std::vector<int> &positions, uint64_t seed) {
    constexpr bool is_bf16 = sizeof(T) == 2;
    const int64_t rows = static_cast<int64_t>(s.batch) * s.sequence, width = s.heads * s.head_dim;
    const std::vector<float> qkv = bf16_values(static_cast<size_t>(rows * 3 * width), 1.5f, seed);
    std::vector<float> cosine, sine, turned = qkv, wanted(static_cast<size_t>(rows * width), NAN),
                                     log_sum(static_cast<size_t>(rows * s.heads), NAN);
    make_rotary(s.sequence, s.head_dim, !is_bf16, &cosine, &sine);
    device *d;
    must(device_create(&d, 1));
    const attention_shape shape = cpu_shape(s, cosine.data(), sine.data());
    std::vector<float> scratch(attention_scratch_floats(d, &shape));
    op_attention(d, &shape, as_activations(turned.data()), as_activations(wanted.data()), log_sum.data(),
                 scratch.data());
    device_destroy(d);

    const attention_sizes sizes = {s.batch, s.sequence, s.heads, s.head_dim, true, nullptr};
    const buffer<float> cosines(cosine), sines(sine);
    const auto all = in_every_order(
        std::make_tuple(stored<T>(qkv), poisoned<T>(rows * width), poisoned<float>(rows * s.heads)),
        [&](T *x, T *out, float *sums) {
            const cudaError_t error = rotary_rows<T>(nullptr, rows, s.sequence, s.heads, s.head_dim,
                                                     cosines.data(), sines.data(), 1.0f, x);
            return error != cudaSuccess ? error : attention_rows<T>(nullptr, sizes, longest, x, out, sums);
        });
    const auto &[rotated, out, sums] = all;
    close_to<T>("attention_rows", s, plain(out), wanted, is_bf16 ? HALF_UNIT : 0.0, 4e-6);
    close_to<T>("attention_rows log-sum", s, sums, log_sum, 0.0, 3e-6);
    for (int position : positions) {
        const decode_sizes one = {s.batch, s.heads, s.head_dim, s.sequence, longest, position, nullptr};
        std::vector<T> row, before;
        for (int64_t b = 0; b < s.batch; b++) {
            const T *first = rotated.data() + b * s.sequence * 3 * width;
            const std::vector<T> plain_rows = stored<T>(qkv);
            const T *given = plain_rows.data() + (b * s.sequence + position) * 3 * width;
            row.insert(row.end(), given, given + 3 * width);
            before.insert(before.end(), first, first + position * 3 * width);
        }
        const buffer<T> history(before.empty() ? std::vector<T>(1) : before);
        const int64_t cached = s.batch * width * s.sequence;
        const auto decoded = in_every_order(
            std::make_tuple(row, poisoned<T>(cached), poisoned<T>(cached), poisoned<T>(s.batch * width)),
            [&](T *x, T *keys, T *values, T *to) {
                const cudaError_t error = fill_cache<T>(nullptr, s.batch, position, s.heads, s.head_dim,
                                                        s.sequence, history.data(), keys, values);
                return error != cudaSuccess ? error
                                            : attention_decode<T>(nullptr, one, 1, cosines.data(),
                                                                  sines.data(), x, keys, values, to, nullptr);
            });
        for (int64_t b = 0; b < s.batch; b++)
            assert_memory_equal(std::get<3>(decoded).data() + b * width,
                                out.data() + (b * s.sequence + position) * width,
                                sizeof(T) * static_cast<size_t>(width));
    }
}

void test_rows(void **) {
    check_rows<float>({1, 1, 1, 16, true, {}}, 1, {0}, 201);
    check_rows<bf16>({2, 4, 2, 64, true, {}}, 4, {0, 1, 3}, 203);
    check_rows<float>({1, 32, 1, 48, true, {}}, 32, {15, 31}, 205);
    check_rows<bf16>({2, 40, 3, 48, true, {}}, 1500, {0, 17, 39}, 207);
    check_rows<float>({1, 40, 1, 128, true, {}}, 40, {38}, 209);
    check_rows<bf16>({1, 530, 1, 64, true, {}}, 530, {511, 512, 529}, 211);
    check_rows<float>({2, 13, 1, 16, true, {}}, 52, {7, 12}, 213); // a prefix, of a longer sequence
    const attention_sizes any = {1, 4, 1, 16, false, nullptr}, wide = {1, 4, 1, 144, true, nullptr};
    float x = 0.0f;
    assert_int_equal(attention_rows<float>(nullptr, any, 4, &x, &x, &x), cudaErrorInvalidValue);
    // Heads that are wider than any kernel is made for are refused, not cut off.
    const decode_sizes decoded = {1, 1, 144, 4, 4, 0, nullptr};
    assert_int_equal(attention_rows<float>(nullptr, wide, 4, &x, &x, &x), cudaErrorInvalidValue);
    assert_int_equal(attention_forward<float>(nullptr, wide, &x, &x, &x), cudaErrorInvalidValue);
    assert_int_equal(attention_backward<float>(nullptr, wide, &x, &x, &x, &x, &x, &x), cudaErrorInvalidValue);
    assert_int_equal(attention_decode<float>(nullptr, decoded, 1, &x, &x, &x, &x, &x, &x, &x),
                     cudaErrorInvalidValue);
}

// Splitting is for chips that batch x heads does not fill.
void test_splits(void **) {
    const decode_sizes large = {256, 16, 64, 1500, 1500, 0, nullptr},
                       small = {1, 16, 64, 1500, 1500, 0, nullptr};
    assert_int_equal(decode_splits(large, 132), 1);
    assert_int_equal(decode_splits(small, 132), 3);
}

} // namespace

int main() {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_training), cmocka_unit_test(test_short),  cmocka_unit_test(test_decode),
        cmocka_unit_test(test_rows),     cmocka_unit_test(test_splits),
    };
    return cmocka_run_group_tests(tests, begin, report);
}
