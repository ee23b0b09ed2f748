// The value network: a separate copy of the policy's temporal stage with one linear output a frame. The value
// of a frame is the expected return before any of its tokens is drawn, and is the baseline of all of them.
#pragma once

#include "core/temporal.h"

typedef struct value_network value_network;
// Registers the temporal stage's tensors under the policy's names, so that it starts from a base checkpoint,
// and value.weight [width], value.bias [1].
status value_create(value_network **out, device *device, const temporal_config *config, bool learn);
void value_destroy(value_network *value); // NULL is allowed
const parameter_list *value_parameters(const value_network *value);
float *value_values(value_network *value); // the flat parameter buffer; then value_pack
status value_pack(value_network *value);
// Sets the output's bias: to the mean reward of the first batch.
status value_set_bias(value_network *value, float bias);

typedef struct value_pass value_pass;
status value_pass_create(value_pass **out, const value_network *value, int batch, int frames, bool keep);
void value_pass_destroy(value_pass *pass);
// values: [batch * frames] on the host, in the pass until the next forward.
status value_forward(value_network *value, value_pass *pass, int batch, const uint16_t *prefix,
                     const uint16_t *tokens, const float **values);
// d_values: [batch * frames] on the host; adds to gradients. `watch` may be NULL.
status value_backward(value_network *value, value_pass *pass, int batch, const float *d_values,
                      float *gradients, const gradient_watch *watch);
