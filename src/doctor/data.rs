//! Whether a pack is what it says, honest to measure on, and enough for the settings.

use super::{Case, Row, names};
use crate::config::Settings;
use crate::crossfit;
use crate::dataset::profile::Profile;
use crate::dataset::{Pack, Split, leaks};
use crate::failure::one_line;
use crate::labels::Candidates;
use crate::random::Streams;

/// A class with a smaller share of the labelled training faces is easily not learned: one face in a hundred.
const RARE: f64 = 0.01;

/// All checks of the case's pack.
pub fn rows(case: &Case, mut tell: impl FnMut(Row)) {
    let Some(pack) = &case.pack else {
        for name in ["dataset hash", "leaks", "class balance", "label protocol", "candidate sets"] {
            tell(Row::ok(name, "no --data given: not checked"));
        }
        return;
    };
    tell(hash(pack));
    tell(leaks_between(pack));
    let splits = Split::ALL.map(|split| Profile::of(pack, Some(split)));
    tell(balance(pack, &splits, case.settings.finetune.balanced));
    tell(protocol(pack, &splits));
    tell(candidates(pack, &case.settings));
}

fn hash(pack: &Pack) -> Row {
    let name = "dataset hash";
    match pack.verify() {
        Ok(()) => Row::ok(name, format!("{} of {} faces, as its header says", &pack.hash()[..16], pack.faces().len())),
        Err(error) => Row::stop(name, one_line(&error), "make the pack again with `moue import`, or copy it again"),
    }
}

fn leaks_between(pack: &Pack) -> Row {
    let name = "leaks";
    let found = match leaks::find(pack) {
        Ok(found) => found,
        Err(error) => return Row::stop(name, one_line(&error), "make the pack again with `moue import`, or copy it again"),
    };
    if let Some(text) = leaks::warning(&found) {
        return Row::warning(name, text, leaks::REMEDY);
    }
    match found.first() {
        Some(leak) => Row::warning(
            name,
            format!("{} {} faces have a pixel-identical copy in {}", leak.rows_from, leak.from, leak.to),
            "a model chosen on valid has seen these test faces: report the last epoch, not the best one",
        ),
        None => Row::ok(name, "no face stands in two splits"),
    }
}

fn balance(pack: &Pack, splits: &[Profile; 3], balanced: bool) -> Row {
    let name = "class balance";
    let [train, valid, test] = splits;
    let labelled: usize = train.labels.iter().sum();
    let missing = |profile: &Profile| -> Vec<usize> { (0..profile.labels.len()).filter(|&c| profile.labels[c] == 0).collect() };
    if labelled == 0 {
        let advice = "enough for `moue pretrain`; finetuning learns from candidate sets alone and measures nothing";
        return Row::warning(name, format!("none of {} training faces has a label", train.faces), advice);
    }
    let share = |n: usize| n as f64 / labelled as f64;
    let absent = missing(train);
    if !absent.is_empty() {
        let found = format!("no training face is labelled {}", names(pack, absent.into_iter()));
        return Row::stop(name, found, "no model can learn that: import faces of it, or a card without it");
    }
    let rarest = (0..train.labels.len()).min_by_key(|&c| train.labels[c]).unwrap_or(0);
    let found = format!(
        "rarest: {}, {:.1} % of {labelled} labelled training faces",
        names(pack, [rarest].into_iter()),
        100.0 * share(train.labels[rarest])
    );
    let unmeasured: Vec<String> = [(Split::Valid, valid), (Split::Test, test)]
        .into_iter()
        .filter(|(_, profile)| profile.labels.iter().sum::<usize>() > 0)
        .filter_map(|(split, profile)| Some((split, missing(profile))).filter(|(_, missing)| !missing.is_empty()))
        .map(|(split, missing)| format!("no {split} face is labelled {}", names(pack, missing.into_iter())))
        .collect();
    if !unmeasured.is_empty() {
        let advice = "scores say nothing about such a class; mean class accuracy is over the others";
        return Row::warning(name, format!("{}; {found}", unmeasured.join("; ")), advice);
    }
    match share(train.labels[rarest]) < RARE && !balanced {
        true => {
            Row::warning(name, found, "read mean class accuracy beside accuracy; --set finetune.balanced=true draws classes equally often")
        }
        false => Row::ok(name, found),
    }
}

fn protocol(pack: &Pack, [train, valid, test]: &[Profile; 3]) -> Row {
    let name = "label protocol";
    let card = pack.protocol();
    let found = format!("{} ({}): {}", card.name, card.hash(), card.classes.join(", "));
    if train.faces == 0 {
        return Row::stop(name, format!("{found}; there are no training faces"), "import the training split, too");
    }
    let labelled = |profile: &Profile| profile.faces - profile.unlabelled;
    match (labelled(valid), labelled(test)) {
        (0, 0) => Row::warning(name, format!("{found}; no valid and no test face has a label"), "nothing would be measured"),
        (0, _) => {
            Row::warning(name, format!("{found}; no valid face has a label"), "`moue import ... --valid-share 0.1` takes some from train")
        }
        (_, 0) => Row::warning(name, format!("{found}; no test face has a label"), "results would be those on valid"),
        (v, t) => Row::ok(name, format!("{found}; {v} valid and {t} test faces are labelled")),
    }
}

/// Whether the settings make candidate sets of what the pack holds.
pub(super) fn candidates(pack: &Pack, s: &Settings) -> Row {
    let (name, strategy) = ("candidate sets", s.labels.strategy.name());
    if !s.finetune.objective.is_partial() {
        return Row::ok(name, format!("none needed: {} learns from given labels or votes", s.finetune.objective.name()));
    }
    if s.labels.strategy.predicts() {
        return match crossfit::deal(pack, &s.labels, &Streams::new(0)) {
            Ok((folds, _)) => {
                Row::ok(name, format!("labels.strategy = {strategy}: {} folds are trained first, by `moue labels`", folds.count()))
            }
            Err(error) => Row::stop(name, one_line(&error), "lower labels.folds, or take another strategy"),
        };
    }
    let built = match Candidates::build(pack, &s.labels) {
        Ok(built) => built,
        Err(error) => {
            let advice = "--set labels.strategy=gaave predicts them (`moue labels`); --set finetune.objective=ce does without";
            return Row::stop(name, one_line(&error), advice);
        }
    };
    let share = built.ambiguous_share();
    let left_out = if built.left_out > 0 { format!(", {} faces left out", built.left_out) } else { String::new() };
    let found = format!("labels.strategy = {strategy}: {:.1} % of {} faces are ambiguous{left_out}", 100.0 * share, built.sets.len());
    match share {
        0.0 => Row::warning(name, found, "there is nothing to disambiguate: lower labels.min_votes or labels.share"),
        share if share > s.labels.max_share => {
            Row::warning(name, found, "more than labels.max_share: raise labels.share or labels.min_votes if that is not meant")
        }
        _ => Row::ok(name, found),
    }
}
