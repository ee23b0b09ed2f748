// `musicrl reward collect`: makes a folder of ratings (data/ratings.h) by asking the panel of simulated
// listeners, as a study with people would be made: several clips of each caption by the base model, heard and
// compared in pairs; and clips of the corpus, clips with damaged sound and clips of the base model, scored
// for their quality. Everything heard is the decoded sound of the levels that the policy models.
#pragma once

#include "launch/run_config.h"

// Publishes data.ratings as a whole; refuses if it is there. Prints counts, shares, agreement and the time
// taken. The same settings give the same bytes.
status collect_run(const run_config *config);
