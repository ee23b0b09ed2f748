// A stack of pre-norm transformer blocks on rows [batch * sequence, width]:
//     x += Attention(RMSNorm(x));  x += W_down SwiGLU(W_gate_up RMSNorm(x));  finally RMSNorm(x)
// without biases, with rotary positions. It serves every network here; what differs between them is data in
// the configuration.
#pragma once

#include "core/gradient_watch.h"
#include "core/parameters.h"
#include "kernels/operators.h"
#include "kernels/product.h"

typedef struct transformer_config {
    int layers, width, heads, feed_forward;
    int positions; // longest sequence
    bool causal;
} transformer_config;

// One line that says what is impossible about the sizes of `what`, or STATUS_OK.
status transformer_config_check(const transformer_config *config, const char *what);

typedef struct transformer transformer;

// Registers its tensors as PREFIX.layers.{i}.{norm1,qkv,out,norm2,gate_up,down}.weight and
// PREFIX.norm.weight. use: of the packed weights.
status transformer_create(transformer **out, device *device, const transformer_config *config,
                          parameter_list *list, const char *prefix, weight_use use,
                          weight_precision precision);
void transformer_destroy(transformer *transformer);
const transformer_config *transformer_get_config(const transformer *transformer);

// Packs the current values of the flat parameter buffer for the products.
status transformer_pack(transformer *transformer, const float *parameters);

// Multiply-adds of the forward products of one row (attention over keys left out).
double transformer_products_per_row(const transformer_config *config);

// Activations of a forward pass over [batch, sequence]; those of every layer are kept if `keep`.
typedef struct transformer_activations transformer_activations;
status transformer_activations_create(transformer_activations **out, const transformer *transformer,
                                      int batch, int sequence, bool keep);
void transformer_activations_destroy(transformer_activations *activations);

// The buffer where the caller puts the input, [batch * sequence, width]. A forward pass leaves it as it is if
// the activations are kept, otherwise it is overwritten.
float *transformer_input(transformer_activations *activations);
// batch may be smaller than planned. lengths: [batch] or NULL. The result is valid until the next forward:
// [batch * sequence, width], normalised.
status transformer_forward(transformer *transformer, const float *parameters,
                           transformer_activations *activations, int batch, const int32_t *lengths,
                           const float **output);
// dx: [batch * sequence, width]: gradient of the output when called, of the input on return. Adds to the flat
// gradient buffer; `watch` (NULL: nobody) is told after each layer.
status transformer_backward(transformer *transformer, const float *parameters, float *gradients,
                            transformer_activations *activations, int batch, const int32_t *lengths,
                            float *dx, const gradient_watch *watch);

// Key-value cache for decoding a batch position by position.
typedef struct transformer_cache transformer_cache;
status transformer_cache_create(transformer_cache **out, const transformer *transformer, int batch,
                                int positions);
void transformer_cache_destroy(transformer_cache *cache);
float *transformer_cache_input(transformer_cache *cache); // [batch, width]
// Reads the first positions of every sample at once, activations->sequence of them, from
// transformer_input(activations); output: [batch * sequence, width] as of transformer_forward. Decoding goes
// on with the position after them.
status transformer_prefill(transformer *transformer, const float *parameters,
                           transformer_activations *activations, transformer_cache *cache, int batch,
                           const float **output);
// Positions come in order: 0 (which starts over), or the first after a prefill, and so on. offset: [1] on the
// device, added to the position; NULL: 0. output: [batch, width].
status transformer_decode(transformer *transformer, const float *parameters, transformer_cache *cache,
                          int batch, int position, const int32_t *offset, const float **output);
