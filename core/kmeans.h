// k-means clustering: k-means++ seeding (Arthur and Vassilvitskii, 2007), Lloyd's iterations, revival of dead
// clusters. The result depends on vectors, settings and seed only, never on the number of threads.
#pragma once

#include "kernels/status.h"

#include <stddef.h>
#include <stdint.h>

enum { KMEANS_CLUSTERS_MAX = 65535 };

typedef struct kmeans_settings {
    uint32_t clusters;   // 1 .. KMEANS_CLUSTERS_MAX, at most the number of vectors
    uint32_t dimension;  // of a vector
    uint32_t iterations; // of Lloyd
    uint64_t seed;
    uint32_t purpose; // keeps trainings with the same seed apart
} kmeans_settings;

// vectors: [count, dimension]; centroids: [clusters, dimension] receives the result. A cluster that holds
// fewer vectors than 1/20 of an even share is dead: its centroid is drawn anew among the vectors, with
// probability proportional to their squared distance, in all but the last iterations.
status kmeans_train(const float *vectors, size_t count, const kmeans_settings *settings, float *centroids);

// Centroids laid out for fast comparison. Read-only afterwards, shared by threads.
typedef struct kmeans_index kmeans_index;
// centroids: [clusters, dimension], copied.
status kmeans_index_create(kmeans_index **out, const float *centroids, uint32_t clusters, uint32_t dimension);
void kmeans_index_destroy(kmeans_index *index); // NULL is allowed

// scores[i, k] = |centroid k|^2 / 2 - vector i . centroid k: half the squared distance less |vector i|^2 / 2.
// vectors: [count, dimension]; scores: [count, kmeans_index_stride]. Each score is the same bits whatever
// else is in the call.
void kmeans_index_score(const kmeans_index *index, const float *vectors, size_t count, float *scores);
size_t kmeans_index_stride(const kmeans_index *index); // clusters rounded up to 16; the rest scores FLT_MAX

// Nearest centroid of each vector, the lowest number on a tie. vectors: [count, dimension]; codes: [count];
// distance: [count] squared distance, or NULL. Large counts run on all OpenMP threads.
void kmeans_index_assign(const kmeans_index *index, const float *vectors, size_t count, uint16_t *codes,
                         float *distance);
