// Gradients, norms and updates of the networks that learn, where every learner holds the whole optimiser, and
// where each holds a part of its moments (train.shard_optimizer): S. Rajbhandari, J. Rasley, O. Ruwase, Y.
// He, "ZeRO: memory optimizations toward training trillion parameter models", 2020, stage 1. Gradients are
// summed part by part, each learner updates its part of the parameters, and all gather them: as many bytes as
// one all-reduce, and on the CPU the same bits as without.
#include "launch/train_parts.h"

#include "kernels/memory.h"

#include <math.h>

static optimizer *optimizer_of(const train *t, learner_network network) {
    learner *l = t->learner.learner;
    return network == NETWORK_POLICY ? learner_policy_optimizer(l) : learner_value_optimizer(l);
}

static float *values_of(const train *t, learner_network network) {
    learner *l = t->learner.learner;
    return network == NETWORK_POLICY ? policy_values(learner_policy(l)) : value_values(learner_value(l));
}

static gradient_sum *gradients_of(const train *t, learner_network network) {
    return network == NETWORK_POLICY ? t->learner.policy_gradients : t->learner.value_gradients;
}

static status shard_optimizer(train *t, learner_network network) {
    learner_role *l = &t->learner;
    optimizer *o = optimizer_of(t, network);
    const group_part own = group_part_of(l->group, o->list->size, OPTIMIZER_UNIT, group_index(l->group));
    TRY(optimizer_keep_part(o, own.begin, own.end - own.begin));
    TRY(memory_allocate((void **)&l->squares[network], sizeof(double) * optimizer_units(o),
                        "sums of squares"));
    if (device_group_is_direct(l->devices))
        return STATUS_OK;
    return mirror_create(&l->values_mirror[network], t->device, values_of(t, network),
                         sizeof(float) * o->list->size, "parameters on the host");
}

static status tell_sum(void *context, size_t from) {
    return gradient_sum_final(context, from);
}

const gradient_watch *train_next_watch(train *t, learner_network network) {
    return gradient_sum_goes_out(gradients_of(t, network)) ? &t->learner.watches[network] : NULL;
}

status train_share_out(train *t) {
    learner_role *l = &t->learner;
    const size_t bucket = (size_t)(t->config->gradient_bucket * (1 << 20) / sizeof(float));
    if (!l->active)
        return STATUS_OK;
    l->sharded = t->config->train.shard_optimizer && group_size(l->group) > 1;
    for (int i = 0; i < NETWORKS; i++) {
        const learner_network network = (learner_network)i;
        if (gradients_of(t, network) == NULL)
            continue;
        l->watches[i] = (gradient_watch){tell_sum, gradients_of(t, network)};
        TRY(gradient_sum_among(gradients_of(t, network), l->devices, l->sharded ? OPTIMIZER_UNIT : 0,
                               bucket));
        if (l->sharded)
            TRY(shard_optimizer(t, network));
    }
    return STATUS_OK;
}

void train_release_shards(train *t) {
    for (int i = 0; i < NETWORKS; i++) {
        memory_free(t->learner.squares[i]);
        mirror_release(&t->learner.values_mirror[i]);
    }
}

status train_measure_gradients(train *t, learner_network network, double *norm) {
    learner_role *l = &t->learner;
    const optimizer *o = optimizer_of(t, network);
    const float *gradients = gradient_sum_values(gradients_of(t, network));
    TRY(gradient_sum_share(gradients_of(t, network)));
    if (!l->sharded) {
        *norm = sqrt(op_sum_squares(t->device, o->list->size, gradients));
        return STATUS_OK;
    }
    // Every unit is one learner's and 0 elsewhere, so that the sums are exact.
    optimizer_sum_squares(o, gradients, l->squares[network]);
    TRY(group_all_reduce_tree_double(l->group, l->squares[network], optimizer_units(o)));
    *norm = optimizer_norm(o, l->squares[network]);
    return STATUS_OK;
}

// Every learner's part of the parameters to all.
static status gather_values(train *t, learner_network network) {
    learner_role *l = &t->learner;
    const size_t count = optimizer_of(t, network)->list->size;
    if (device_group_is_direct(l->devices)) {
        TRY(device_group_gather_parts(l->devices, values_of(t, network), count, OPTIMIZER_UNIT));
        return device_group_wait(l->devices);
    }
    mirror *values = &l->values_mirror[network];
    TRY(mirror_fetch(values));
    TRY(group_all_gather_parts(l->group, values->host, count, OPTIMIZER_UNIT));
    return mirror_store(values);
}

status train_update_network(train *t, learner_network network, float rate, double norm) {
    learner_role *l = &t->learner;
    optimizer *o = optimizer_of(t, network);
    optimizer_apply(o, rate, norm, gradient_sum_values(gradients_of(t, network)), values_of(t, network));
    if (l->sharded)
        TRY(gather_values(t, network));
    return network == NETWORK_POLICY ? policy_pack(learner_policy(l->learner))
                                     : value_pack(learner_value(l->learner));
}
