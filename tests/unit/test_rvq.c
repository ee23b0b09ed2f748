#include "core/kmeans.h"
#include "core/principal.h"
#include "core/rvq.h"
#include "kernels/memory.h"
#include "kernels/philox.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#endif

#include <cmocka.h>

enum { COUNT = 3000, DIMENSION = 13, CODES = 32, LEVELS = 4 };

static float vectors[COUNT * DIMENSION];

static void set_threads(int threads) {
#ifdef _OPENMP
    omp_set_num_threads(threads);
#else
    (void)threads;
#endif
}

// Clouds of unequal size around 40 centres.
static int fill_vectors(void **state) {
    (void)state;
    philox_stream random = {.key = 3, .purpose = 1};
    for (size_t i = 0; i < COUNT; i++) {
        uint32_t cloud = philox_next_below(&random, 1 + philox_next_below(&random, 40));
        for (size_t d = 0; d < DIMENSION; d++) {
            float centre = 4.0f * philox_uniform(philox(9, cloud, (uint32_t)d, 0, 0).word[0]);
            vectors[i * DIMENSION + d] =
                centre + philox_next_uniform(&random) + philox_next_uniform(&random) - 1.0f;
        }
    }
    return 0;
}

static const rvq_settings settings = {
    .dimension = DIMENSION, .levels = LEVELS, .codebook_size = CODES, .iterations = 8, .seed = 5};

static float codebooks[LEVELS * CODES * DIMENSION];

static void test_same_bits_for_any_threads(void **state) {
    (void)state;
    static float one[LEVELS * CODES * DIMENSION];
    set_threads(1);
    assert_int_equal(rvq_train(vectors, COUNT, &settings, one), STATUS_OK);
    for (int threads = 2; threads <= 3; threads++) {
        set_threads(threads);
        assert_int_equal(rvq_train(vectors, COUNT, &settings, codebooks), STATUS_OK);
        assert_memory_equal(one, codebooks, sizeof one);
    }
    rvq_settings other = settings;
    other.seed = 6;
    assert_int_equal(rvq_train(vectors, COUNT, &other, one), STATUS_OK);
    assert_memory_not_equal(one, codebooks, sizeof one);
}

static double mean_error(const rvq *quantiser, uint32_t levels, uint32_t used[LEVELS][CODES]) {
    float scratch[4096] __attribute__((aligned(64)));
    assert_true(rvq_scratch_floats(quantiser) <= 4096);
    double sum = 0;
    for (size_t i = 0; i < COUNT; i++) {
        const float *vector = vectors + i * DIMENSION;
        uint16_t codes[LEVELS];
        float back[DIMENSION];
        rvq_encode(quantiser, vector, codes, scratch);
        rvq_decode(quantiser, codes, levels, back);
        for (size_t d = 0; d < DIMENSION; d++)
            sum += (double)(vector[d] - back[d]) * (vector[d] - back[d]);
        for (uint32_t level = 0; level < LEVELS && used != NULL; level++)
            used[level][codes[level]]++;
    }
    return sum / COUNT;
}

static void test_error_falls_with_levels(void **state) {
    (void)state;
    uint32_t used[LEVELS][CODES] = {{0}};
    double greedy[LEVELS + 1], joint[LEVELS + 1];
    for (int pass = 0; pass < 2; pass++) {
        rvq *quantiser;
        assert_int_equal(rvq_create(&quantiser, codebooks, DIMENSION, LEVELS, CODES, 1, pass == 0 ? 1 : 8),
                         STATUS_OK);
        for (uint32_t levels = 0; levels <= LEVELS; levels++) {
            double error = mean_error(quantiser, levels, pass == 0 && levels == 0 ? used : NULL);
            (pass == 0 ? greedy : joint)[levels] = error;
        }
        rvq_destroy(quantiser);
    }
    for (uint32_t levels = 1; levels <= LEVELS; levels++) {
        assert_true(greedy[levels] < 0.9 * greedy[levels - 1]);
        assert_true(joint[levels] < 0.9 * joint[levels - 1]);
    }
    // The first level is greedy in both, and the search can only help in the end.
    assert_true(fabs(joint[1] - greedy[1]) < 1e-9);
    assert_true(joint[LEVELS] < 0.98 * greedy[LEVELS]);
    for (uint32_t level = 0; level < LEVELS; level++) {
        for (uint32_t code = 0; code < CODES; code++)
            assert_true(used[level][code] * 20 * CODES >= COUNT);
    }
}

// Greedy levels take the nearest code, as a plain search finds it.
static void test_nearest_code(void **state) {
    (void)state;
    kmeans_index *index;
    uint16_t codes[COUNT];
    float distance[COUNT];
    assert_int_equal(kmeans_index_create(&index, codebooks, CODES, DIMENSION), STATUS_OK);
    kmeans_index_assign(index, vectors, COUNT, codes, distance);
    for (size_t i = 0; i < COUNT; i++) {
        double least = INFINITY, found = 0;
        for (uint32_t k = 0; k < CODES; k++) {
            double sum = 0;
            for (size_t d = 0; d < DIMENSION; d++) {
                double difference = vectors[i * DIMENSION + d] - codebooks[k * DIMENSION + d];
                sum += difference * difference;
            }
            least = fmin(least, sum);
            if (k == codes[i])
                found = sum;
        }
        assert_true(found <= least + 1e-4);
        assert_true(fabs(distance[i] - found) < 1e-3);
    }
    kmeans_index_destroy(index);
}

enum { CLUSTERS = 128, SPACE = 4 };

// Of a training with `iterations`, and `more` of Lloyd's after it.
static int dead_clusters(const float *points, uint64_t seed, uint32_t iterations, int more) {
    const kmeans_settings clustering = {
        .clusters = CLUSTERS, .dimension = SPACE, .iterations = iterations, .seed = seed};
    float centroids[CLUSTERS * SPACE];
    uint16_t codes[COUNT];
    int members[CLUSTERS], dead = 0;
    assert_int_equal(kmeans_train(points, COUNT, &clustering, centroids), STATUS_OK);
    for (int round = 0; round <= more; round++) {
        double sums[CLUSTERS * SPACE] = {0};
        kmeans_index *index;
        assert_int_equal(kmeans_index_create(&index, centroids, CLUSTERS, SPACE), STATUS_OK);
        kmeans_index_assign(index, points, COUNT, codes, NULL);
        kmeans_index_destroy(index);
        memset(members, 0, sizeof members);
        for (size_t i = 0; i < COUNT; i++) {
            members[codes[i]]++;
            for (size_t d = 0; d < SPACE; d++)
                sums[codes[i] * SPACE + d] += (double)points[i * SPACE + d];
        }
        for (size_t k = 0; k < CLUSTERS * SPACE && round < more; k++)
            if (members[k / SPACE] > 0)
                centroids[k] = (float)(sums[k] / members[k / SPACE]);
    }
    for (size_t k = 0; k < CLUSTERS; k++)
        dead += members[k] * 20 * CLUSTERS < COUNT;
    return dead;
}

// Where most points lie close together, seeding gives the sparse surroundings too many centroids. As many
// iterations, but three trained and the rest here, are without revival.
static void test_dead_clusters_are_revived(void **state) {
    (void)state;
    static float points[COUNT * SPACE];
    philox_stream random = {.key = 10};
    for (size_t i = 0; i < COUNT * SPACE; i++) {
        const float x = philox_next_uniform(&random) + philox_next_uniform(&random) - 1.0f;
        points[i] = x * x * x;
    }
    int plain = 0, revived = 0;
    for (uint64_t seed = 1; seed <= 4; seed++) {
        plain += dead_clusters(points, seed, 3, 9);
        revived += dead_clusters(points, seed, 12, 0);
    }
    print_message("dead without revival %d, with it %d\n", plain, revived);
    assert_true(plain > 0);
    assert_int_equal(revived, 0);
}

static void test_degenerate_vectors(void **state) {
    (void)state;
    static float same[64 * DIMENSION], centroids[16 * DIMENSION];
    kmeans_settings clustering = {.clusters = 16, .dimension = DIMENSION, .iterations = 4, .seed = 1};
    for (size_t i = 0; i < 64 * DIMENSION; i++)
        same[i] = 2.0f;
    assert_int_equal(kmeans_train(same, 64, &clustering, centroids), STATUS_OK);
    for (size_t i = 0; i < 16 * DIMENSION; i++)
        assert_true(centroids[i] == 2.0f);
    float mean[DIMENSION], basis[4 * DIMENSION];
    assert_int_equal(principal_components(same, 64, DIMENSION, 4, 1, mean, basis), STATUS_OK);
    for (size_t i = 0; i < 4 * DIMENSION; i++)
        assert_true(isfinite(basis[i]));
}

static void test_principal_components(void **state) {
    (void)state;
    enum { WIDTH = 6 };
    static float cloud[2000 * WIDTH];
    philox_stream random = {.key = 8};
    // Variance along (1, 1, 0, ...) and along axis 3; a little everywhere.
    for (size_t i = 0; i < 2000; i++) {
        float a = 6.0f * philox_next_uniform(&random), b = 3.0f * philox_next_uniform(&random);
        for (size_t d = 0; d < WIDTH; d++)
            cloud[i * WIDTH + d] = 0.1f * philox_next_uniform(&random) + (d < 2 ? a : 0) + (d == 3 ? b : 0);
    }
    float mean[WIDTH], basis[2 * WIDTH];
    assert_int_equal(principal_components(cloud, 2000, WIDTH, 2, 1, mean, basis), STATUS_OK);
    assert_true(fabs(fabs(basis[0]) - sqrt(0.5)) < 1e-3 && fabs(fabs(basis[1]) - sqrt(0.5)) < 1e-3);
    assert_true(fabs(fabs(basis[WIDTH + 3]) - 1.0) < 1e-3);
    assert_true(fabs(mean[0] - 3.05) < 0.15);
}

static void test_bad_input(void **state) {
    (void)state;
    rvq *quantiser;
    float *out = codebooks;
    rvq_settings bad = settings;
    bad.levels = 0;
    assert_int_equal(rvq_train(vectors, COUNT, &bad, out), STATUS_USAGE);
    bad.levels = RVQ_LEVELS_MAX + 1;
    assert_int_equal(rvq_train(vectors, COUNT, &bad, out), STATUS_USAGE);
    bad = settings;
    assert_int_equal(rvq_train(vectors, CODES - 1, &bad, out), STATUS_FAILED);
    assert_non_null(strstr(status_message(), "at least 32"));
    float kept = vectors[DIMENSION + 2];
    vectors[DIMENSION + 2] = NAN;
    assert_int_equal(rvq_train(vectors, COUNT, &bad, out), STATUS_FAILED);
    assert_non_null(strstr(status_message(), "vector 1 of"));
    vectors[DIMENSION + 2] = kept;
    assert_int_equal(rvq_create(&quantiser, codebooks, DIMENSION, LEVELS, CODES, 0, 0), STATUS_USAGE);
    assert_int_equal(rvq_create(&quantiser, codebooks, 0, LEVELS, CODES, 0, 1), STATUS_USAGE);
    assert_null(quantiser);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_bits_for_any_threads),
        cmocka_unit_test(test_error_falls_with_levels),
        cmocka_unit_test(test_nearest_code),
        cmocka_unit_test(test_dead_clusters_are_revived),
        cmocka_unit_test(test_degenerate_vectors),
        cmocka_unit_test(test_principal_components),
        cmocka_unit_test(test_bad_input),
    };
    return cmocka_run_group_tests(tests, fill_vectors, NULL);
}
