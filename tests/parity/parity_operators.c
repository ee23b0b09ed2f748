// Runs operators one by one on random inputs and writes what went in and came out for
// tests/parity/compare.py.
//   parity_operators SEED FILE.safetensors
#include "kernels/operators.h"
#include "kernels/product.h"
#include "tests/as_activations.h"
#include "tests/parity/dump.h"

static dump d;

static float *input(const char *which, const char *name, int64_t rows, int64_t columns) {
    float *out = dump_normal(&d, (size_t)(rows * columns), 0.2f, 1.0f);
    dump_f32(&d, out, SHAPE(rows, columns), "%s/in/%s", which, name);
    return out;
}

static void output(const char *which, const char *name, const float *data, int64_t rows, int64_t columns) {
    dump_f32(&d, data, SHAPE(rows, columns), "%s/out/%s", which, name);
}

static int32_t *random_index(int64_t count, int low, int high) {
    int32_t *out = dump_bytes(&d, sizeof(int32_t) * (size_t)count);
    for (int64_t i = 0; i < count; i++)
        out[i] = dump_between(&d, low, high);
    return out;
}

static void run_rms_norm(const char *which, int64_t rows, int64_t width) {
    const float *x = input(which, "x", rows, width), *gain = input(which, "gain", 1, width),
                *dy = input(which, "dy", rows, width);
    float *dx = input(which, "dx", rows, width), *dgain = input(which, "dgain", 1, width);
    const size_t count = (size_t)(rows * width);
    float *out = dump_zeros(&d, count), *copy = dump_zeros(&d, count),
          *inverse = dump_zeros(&d, (size_t)rows);
    op_rms_norm(d.device, rows, width, x, gain, 1e-5f, as_activations(out), inverse, copy);
    op_rms_norm_backward(d.device, rows, width, x, gain, inverse, as_activations(dy), dx, dgain);
    output(which, "out", out, rows, width);
    output(which, "inverse_rms", inverse, rows, 1);
    output(which, "copy", copy, rows, width);
    output(which, "dx", dx, rows, width);
    output(which, "dgain", dgain, 1, width);
}

static void run_swiglu(const char *which, int64_t rows, int64_t width) {
    const float *gate_up = input(which, "gate_up", rows, 2 * width),
                *dout = input(which, "dout", rows, width);
    float *out = dump_zeros(&d, (size_t)(rows * width)),
          *dgate_up = dump_zeros(&d, (size_t)(rows * 2 * width));
    op_swiglu(d.device, rows, width, as_activations(gate_up), as_activations(out));
    op_swiglu_backward(d.device, rows, width, as_activations(gate_up), as_activations(dout),
                       as_activations(dgate_up));
    output(which, "out", out, rows, width);
    output(which, "dgate_up", dgate_up, rows, 2 * width);
}

static void run_attention(const char *which, attention_shape shape, bool with_lengths) {
    const int64_t rows = (int64_t)shape.batch * shape.sequence, width = (int64_t)shape.heads * shape.head_dim;
    const size_t table = (size_t)(shape.sequence * shape.head_dim / 2);
    float *cosine = dump_zeros(&d, table), *sine = dump_zeros(&d, table);
    op_rotary_table(d.device, shape.sequence, shape.head_dim, cosine, sine);
    shape.cosine = cosine;
    shape.sine = sine;
    dump_number(&d, shape.batch, which, "batch");
    dump_number(&d, shape.heads, which, "heads");
    dump_number(&d, shape.causal, which, "causal");
    if (with_lengths) {
        int32_t *lengths = random_index(shape.batch, 1, shape.sequence);
        dump_i32(&d, lengths, SHAPE(shape.batch), "%s/in/lengths", which);
        shape.lengths = lengths;
    }
    float *qkv = input(which, "qkv", rows, 3 * width);
    const float *dout = input(which, "dout", rows, width);
    float *plain = dump_copy(&d, qkv, (size_t)(rows * 3 * width));
    float *out = dump_zeros(&d, (size_t)(rows * width)), *dqkv = dump_zeros(&d, (size_t)(rows * 3 * width)),
          *log_sum = dump_zeros(&d, (size_t)(rows * shape.heads)),
          *scratch = dump_zeros(&d, attention_scratch_floats(d.device, &shape));
    op_attention(d.device, &shape, as_activations(qkv), as_activations(out), log_sum, scratch);
    op_attention_backward(d.device, &shape, as_activations(qkv), as_activations(out), log_sum,
                          as_activations(dout), as_activations(dqkv), scratch);
    output(which, "out", out, rows, width);
    output(which, "dqkv", dqkv, rows, 3 * width);
    dump_f32(&d, log_sum, SHAPE(shape.batch, shape.heads, shape.sequence), "%s/out/log_sum", which);
    if (!shape.causal)
        return;
    float *keys = dump_zeros(&d, attention_cache_bytes(d.device, &shape) / sizeof(float)),
          *values = dump_zeros(&d, attention_cache_bytes(d.device, &shape) / sizeof(float)),
          *row = dump_zeros(&d, (size_t)(shape.batch * 3 * width)),
          *attended = dump_zeros(&d, (size_t)(shape.batch * width)),
          *decoded = dump_zeros(&d, (size_t)(rows * width));
    for (int position = 0; position < shape.sequence; position++) {
        const int64_t stride = shape.sequence * width;
        op_copy_rows(d.device, shape.batch, 3 * width, plain + position * 3 * width, 3 * stride, row,
                     3 * width, false);
        op_attention_decode(d.device, &shape, position, as_activations(row), as_activations(keys),
                            as_activations(values), as_activations(attended), scratch);
        op_copy_rows(d.device, shape.batch, width, attended, width, decoded + position * width, stride,
                     false);
    }
    output(which, "decoded", decoded, rows, width);
}

static void run_embedding(const char *which, int64_t rows, int64_t width, int entries) {
    const float *first = input(which, "first", entries, width), *second = input(which, "second", 3, width),
                *dout = input(which, "dout", rows, width);
    float *out = input(which, "before", rows, width), *dtable = input(which, "dtable", entries, width);
    const int32_t *index[2] = {random_index(rows, -1, entries - 1), random_index(rows, -1, 2)};
    dump_i32(&d, index[0], SHAPE(rows), "%s/in/first_index", which);
    dump_i32(&d, index[1], SHAPE(rows), "%s/in/second_index", which);
    const float *tables[2] = {first, second};
    op_embedding_sum(d.device, rows, width, 2, tables, index, out, true);
    op_embedding_backward(d.device, rows, entries, width, index[0], dout, dtable);
    output(which, "out", out, rows, width);
    output(which, "dtable", dtable, entries, width);
}

static void run_product(const char *which, int64_t rows, int64_t inputs, int64_t outputs) {
    const float *x = input(which, "x", rows, inputs), *w = input(which, "w", outputs, inputs),
                *dy = input(which, "dy", rows, outputs);
    float *y = input(which, "y", rows, outputs), *dx = dump_zeros(&d, (size_t)(rows * inputs)),
          *dw = input(which, "dw", outputs, inputs);
    weight *packed;
    must(weight_create(&packed, d.device, outputs, inputs, WEIGHT_LEARN, WEIGHT_F32));
    must(weight_pack(packed, w));
    must(product_forward(packed, rows, x, y, true));
    must(product_backward_data(packed, rows, dy, dx, false));
    must(product_backward_weight(packed, rows, x, dy, dw, true));
    weight_destroy(packed);
    output(which, "y", y, rows, outputs);
    output(which, "dx", dx, rows, inputs);
    output(which, "dw", dw, outputs, inputs);
}

static void run_policy_loss(const char *which, int64_t rows, int64_t codebook, bool with_reference) {
    const policy_loss_terms terms = {
        .temperature = 0.7f, .policy_weight = 0.9f, .kl_weight = 0.4f, .entropy_weight = 0.05f};
    dump_number(&d, (double)terms.temperature, which, "temperature");
    dump_number(&d, (double)terms.policy_weight, which, "policy_weight");
    dump_number(&d, (double)terms.kl_weight, which, "kl_weight");
    dump_number(&d, (double)terms.entropy_weight, which, "entropy_weight");
    float *logits = input(which, "logits", rows, codebook);
    const float *reference = with_reference ? input(which, "reference", rows, codebook) : NULL;
    const float *advantages = input(which, "advantages", rows, 1);
    const int32_t *actions = random_index(rows, 0, (int)codebook - 1);
    dump_i32(&d, actions, SHAPE(rows), "%s/in/actions", which);
    float *log_probabilities = dump_zeros(&d, (size_t)rows), *entropies = dump_zeros(&d, (size_t)rows),
          *kls = dump_zeros(&d, (size_t)rows), *scored = dump_zeros(&d, (size_t)rows);
    op_log_probability(d.device, rows, codebook, logits, terms.temperature, actions, scored);
    op_policy_loss(d.device, rows, codebook, logits, reference, actions, advantages, &terms,
                   log_probabilities, entropies, kls,
                   dump_zeros(&d, policy_loss_scratch_floats(d.device, codebook)));
    output(which, "scored", scored, rows, 1);
    output(which, "log_probability", log_probabilities, rows, 1);
    output(which, "entropy", entropies, rows, 1);
    if (with_reference)
        output(which, "kl", kls, rows, 1);
    output(which, "dlogits", logits, rows, codebook);
}

static void run_cross_entropy(const char *which, int64_t rows, int64_t codebook) {
    float *logits = input(which, "logits", rows, codebook), *losses = dump_zeros(&d, (size_t)rows);
    const int32_t *targets = random_index(rows, 0, (int)codebook - 1);
    dump_i32(&d, targets, SHAPE(rows), "%s/in/targets", which);
    op_cross_entropy(d.device, rows, codebook, logits, targets, 0.37f, losses);
    dump_number(&d, (double)0.37f, which, "weight");
    output(which, "loss", losses, rows, 1);
    output(which, "dlogits", logits, rows, codebook);
}

static void run_sums(const char *which, int64_t rows, int64_t repeat, int64_t width) {
    const float *x = input(which, "x", rows * repeat, width);
    float *columns = input(which, "columns", 1, width), *summed = dump_zeros(&d, (size_t)(rows * width));
    op_column_sums(d.device, rows * repeat, width, x, columns);
    op_sum_repeated(d.device, rows, repeat, width, x, summed);
    const float squares = (float)op_sum_squares(d.device, (size_t)(rows * repeat * width), x);
    dump_number(&d, (double)repeat, which, "repeat");
    output(which, "columns", columns, 1, width);
    output(which, "summed", summed, rows, width);
    output(which, "squares", &squares, 1, 1);
}

static void run_adamw(const char *which, int steps, int64_t count, float weight_decay) {
    adamw_step step = {.learning_rate = 3e-3f,
                       .beta1 = 0.9f,
                       .beta2 = 0.95f,
                       .epsilon = 1e-8f,
                       .weight_decay = weight_decay,
                       .gradient_scale = 0.25f};
    dump_number(&d, (double)step.learning_rate, which, "learning_rate");
    dump_number(&d, (double)step.beta1, which, "beta1");
    dump_number(&d, (double)step.beta2, which, "beta2");
    dump_number(&d, (double)step.epsilon, which, "epsilon");
    dump_number(&d, (double)step.weight_decay, which, "weight_decay");
    dump_number(&d, (double)step.gradient_scale, which, "gradient_scale");
    float *parameter = input(which, "parameter", 1, count), *first = dump_zeros(&d, (size_t)count),
          *second = dump_zeros(&d, (size_t)count);
    const float *start = dump_copy(&d, parameter, (size_t)count);
    const float *gradients = input(which, "gradients", steps, count);
    for (step.step = 1; step.step <= steps; step.step++)
        op_adamw(d.device, (size_t)count, &step, gradients + (step.step - 1) * count, parameter, first,
                 second);
    float *change = dump_copy(&d, parameter, (size_t)count); // the parameter itself would hide its errors
    for (int64_t i = 0; i < count; i++)
        change[i] -= start[i];
    output(which, "change", change, 1, count);
    output(which, "first", first, 1, count);
    output(which, "second", second, 1, count);
}

int main(int count, char **arguments) {
    if (count != 3) {
        fprintf(stderr, "usage: parity_operators SEED FILE.safetensors\n");
        return 2;
    }
    dump_open(&d, strtoull(arguments[1], NULL, 10), false);
    run_rms_norm("rms_norm.small", 7, 48);
    run_rms_norm("rms_norm.large", 300, 512);
    run_swiglu("swiglu.small", 5, 48);
    run_swiglu("swiglu.large", 129, 704);
    run_attention("attention.causal", (attention_shape){3, 17, 3, 32, true, NULL, NULL, NULL, 0}, false);
    run_attention("attention.causal_long", (attention_shape){2, 131, 2, 64, true, NULL, NULL, NULL, 0},
                  false);
    run_attention("attention.short", (attention_shape){9, 3, 4, 16, true, NULL, NULL, NULL, 0}, false);
    run_attention("attention.one", (attention_shape){4, 1, 2, 48, true, NULL, NULL, NULL, 0}, false);
    run_attention("attention.full", (attention_shape){3, 37, 2, 16, false, NULL, NULL, NULL, 0}, false);
    run_attention("attention.lengths", (attention_shape){5, 41, 3, 32, false, NULL, NULL, NULL, 0}, true);
    run_embedding("embedding.sum", 61, 48, 13);
    run_product("product.small", 3, 48, 80);
    run_product("product.large", 257, 192, 144);
    run_policy_loss("policy_loss.reference", 33, 80, true);
    run_policy_loss("policy_loss.alone", 33, 1024, false);
    run_cross_entropy("cross_entropy.plain", 29, 112);
    run_sums("sums.plain", 35, 3, 64);
    run_adamw("adamw.decay", 9, 20000, 0.1f);
    run_adamw("adamw.plain", 3, 100, 0.0f);
    dump_write(&d, arguments[2]);
    return 0;
}
