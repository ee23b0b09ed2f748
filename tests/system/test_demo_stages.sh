#!/usr/bin/env bash
# launch/demo.sh decides rightly which stages to run, to skip and to continue. The program and cmake are replaced by
# stand-ins that write what a stage would write, so this tests the script alone.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
status=0

mkdir -p "$scratch/tree/build" "$scratch/bin"
cp -r launch "$scratch/tree/"
printf '#!/bin/sh\nexit 0\n' >"$scratch/bin/cmake"
cat >"$scratch/tree/build/musicrl" <<'STAND_IN'
#!/usr/bin/env bash
# Writes the results of a stage; FAIL_AT=STAGE:STATUS stops in the middle of one.
folder=
for word in "$@"; do
    case $word in
        *folders.yaml) folder=$(sed -n "s/^folder: '\(.*\)'/\1/p" "${word#--set=}") ;;
        folder=*) folder=${word#*folder=} ;;
    esac
done
case "$1 $2" in
    "corpus make") name=corpus folder=$(dirname "$4") ;;
    "codec train") name=codec folder=$(dirname "$4") ;;
    "codec encode") name=tokens folder=$(dirname "$4") ;;
    "reward train") name=reward-$3 ;;
    "reward "*) name=$2 ;;
    "train "*) name=$(basename "$folder") ;;
    "report "*) name=report folder=$2 ;;
    "doctor "*) exit 0 ;;
    *) name=$1 ;;
esac
inside=${folder#"$RUN"}/ # of which laboratory: "" or "/seed-2"
echo "$(grep -oE 'seed-[0-9]+/' <<<"$inside")$name" >>"$RUN/calls"
case $name in
    corpus | tokens | ratings) mkdir -p "$folder/$name" ;;
    codec | listeners) touch "$folder/$name.safetensors" ;;
    embed) mkdir -p "$folder/embedding" ;;
    pretrain) mkdir -p "$folder/base" && echo step >>"$folder/base/state" ;;
    collect) mkdir -p "$folder/ratings" ;;
    eval) touch "$folder/reward.json" ;;
    ablate) touch "$folder/ablation.json" ;;
    evaluate) mkdir -p "$folder/samples" && touch "$folder/evaluation.json" ;;
    report) touch "$folder/report.html" ;;
    reward-*) mkdir -p "$folder/$name" ;;
    *) mkdir -p "$folder" && echo step >>"$folder/state" ;;
esac
[[ $name != "${FAIL_AT%:*}" ]] || exit "${FAIL_AT#*:}"
STAND_IN
chmod +x "$scratch/bin/cmake" "$scratch/tree/build/musicrl"
run=$scratch/run

expect() { # NAME WANTED_STATUS WANTED_CALLS COMMAND...: runs it and compares which stages were called
    local name=$1 wanted=$2 calls=$3 rc=0 seen
    shift 3
    mkdir -p "$run"
    rm -f "$run/calls"
    RUN=$run PATH=$scratch/bin:$PATH "$@" </dev/null >"$scratch/output" 2>&1 || rc=$?
    touch "$run/calls"
    seen=$(tr '\n' ' ' <"$run/calls")
    if [[ $rc == "$wanted" && $seen == "$calls" ]]; then
        echo "ok $name"
    else
        echo "FAIL $name: status $rc (wanted $wanted), stages '$seen' (wanted '$calls')"
        sed 's/^/    /' "$scratch/output"
        status=1
    fi
}

demo=("$scratch/tree/launch/demo.sh" --quick --output "$run")
runs="mulan r u ru evaluate ablate report "
models="listeners collect reward-quality reward-preference eval $runs"
all="corpus codec tokens embed pretrain $models"
expect "demo runs every stage" 0 "$all" "${demo[@]}"
expect "demo skips what is current" 0 "" "${demo[@]}"
sed -i '/^train:/,/^[a-z]*:$/s/steps: .*/steps: 5/' "$scratch/tree/launch/configs/tiny.yaml"
expect "demo redoes what depends on a changed setting" 0 "mulan r u ru evaluate report " "${demo[@]}"
sed -i 's/weight: 1.0/weight: 0.5/' "$scratch/tree/launch/configs/musicrl-u.yaml"
expect "demo redoes one run and what compares it" 0 "u evaluate report " "${demo[@]}"
rm -r "$run/r"
expect "demo redoes a removed result and what follows" 0 "r ru evaluate report " "${demo[@]}"
sed -i '/^pretrain:/,/^[a-z]*:$/s/steps: .*/steps: 7/' "$scratch/tree/launch/configs/tiny.yaml"
expect "demo stops on request" 75 "pretrain " env FAIL_AT=pretrain:75 "${demo[@]}"
expect "demo continues" 0 "pretrain $models" "${demo[@]}"
rm -r "$run/ru"
expect "demo stops within a run" 75 "ru " env FAIL_AT=ru:75 "${demo[@]}"
expect "demo continues the run" 0 "ru evaluate report " "${demo[@]}"
if [[ $(wc -l <"$run/base/state") == 2 && $(wc -l <"$run/ru/state") == 2 && $(wc -l <"$run/u/state") == 1 ]]; then
    echo "ok demo keeps what was half-done and removes what is outdated"
else
    echo "FAIL demo keeps what was half-done and removes what is outdated"
    status=1
fi
run=$run-full
three="pretrain listeners collect reward-quality reward-preference eval mulan r u ru"
wanted="corpus codec tokens embed $three quality dpo evaluate ablate r-long u-long ru-long "
for word in embed $three evaluate ablate report; do wanted+="seed-2/$word "; done
for word in embed $three evaluate ablate report; do wanted+="seed-3/$word "; done
expect "demo runs three seeds" 0 "${wanted}evaluate report " "${demo[@]}" --full --output "$run"
expect "demo without --full keeps them" 0 "evaluate report " "${demo[@]}" --output "$run"
run=$scratch/run-2
expect "demo reports a failed stage" 1 "corpus codec " env FAIL_AT=codec:1 "${demo[@]}" --output "$run"
expect "demo redoes a failed stage" 0 "codec tokens embed pretrain $models" "${demo[@]}" --output "$run"
echo "# rebuilt" >>"$scratch/tree/build/musicrl"
expect "demo keeps stages of an older build if asked" 0 "" "${demo[@]}" --output "$run" --reuse
expect "demo redoes stages of an older build" 0 "$all" "${demo[@]}" --output "$run"
expect "demo refuses a wrong number of ranks" 2 "" "${demo[@]}" --output "$run" --ranks two
expect "demo refuses an unknown option" 2 "" "${demo[@]}" --output "$run" --fast
exit "$status"
