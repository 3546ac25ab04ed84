//! Candidate sets from predictions: the rules that turn what models say about a face they never saw into its candidates (METHOD 2).
//!
//! Plain arithmetic on what [`Evidence`] holds; training the models and attacking the faces is the business of `crossfit`.

use super::candidates::{CandidateSet, Prediction, Provenance};
use crate::config::{LabelSettings, Strategy};
use crate::dataset::Class;

/// What models that were not trained on a face say about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Evidence {
    /// `[C]`: softmax, averaged over the face and its mirror image.
    pub probabilities: Vec<f32>,
    /// See [`kappa`]; only under [`Strategy::Gaave`], and only for faces with a given label.
    pub kappa: Option<usize>,
}

/// How many iterates of an attack are still predicted as the given label: 0 to their number (GAIRAT's geometry value, which leaves out the
/// last iterate, counted over all of them).
pub fn kappa(predicted: impl IntoIterator<Item = Class>, given: Class) -> usize {
    predicted.into_iter().filter(|&class| class == given).count()
}

/// Classes from the most to the least likely, the lower class first where two are equal.
fn ranked(probabilities: &[f32]) -> Vec<Class> {
    let mut classes: Vec<Class> = (0..probabilities.len() as Class).collect();
    classes.sort_by(|&a, &b| probabilities[usize::from(b)].total_cmp(&probabilities[usize::from(a)]).then(a.cmp(&b)));
    classes
}

/// The candidates of a face under a strategy that predicts: its given label alone, or the `labels.k` most likely classes, to which
/// `labels.include_given` adds the given one.
///
/// # Panics
/// Under a strategy that does not predict, and under `gaave` for a labelled face that was not attacked: both are programming errors.
pub fn decide(evidence: &Evidence, given: Option<Class>, settings: &LabelSettings) -> CandidateSet {
    let mut classes = ranked(&evidence.probabilities);
    let best = classes[0];
    let provenance = match (settings.strategy, given) {
        (Strategy::Votes | Strategy::Distribution | Strategy::File, _) => unreachable!("{} does not predict", settings.strategy.name()),
        (_, None) => Provenance::Unlabelled,
        (Strategy::TopkAll, Some(_)) => Provenance::Predicted,
        (Strategy::CrossfitDisagree, Some(given)) if best == given => Provenance::Agreed,
        (Strategy::CrossfitDisagree, Some(_)) => Provenance::Disagreed,
        (Strategy::Gaave, Some(_)) => match evidence.kappa.expect("labelled faces are attacked") {
            kappa if kappa >= settings.kappa_min => Provenance::Clean,
            0 => Provenance::Noisy,
            _ => Provenance::Vulnerable,
        },
    };
    match (provenance, given) {
        (Provenance::Agreed | Provenance::Clean, Some(given)) => classes = vec![given],
        (_, given) => {
            classes.truncate(settings.k);
            classes.extend(given.filter(|given| settings.include_given && !classes.contains(given)));
            classes.sort_unstable();
        }
    }
    let prediction = Prediction { class: best, probability: evidence.probabilities[usize::from(best)], kappa: evidence.kappa };
    CandidateSet { classes, provenance, prediction: Some(prediction) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn golden_kappas() {
        let golden: Value = serde_json::from_str(include_str!("../../tests/golden/misc.json")).unwrap();
        let cases = golden["kappa"].as_array().unwrap();
        assert!(cases.len() >= 5);
        for case in cases {
            let class = |v: &Value| v.as_u64().unwrap() as Class;
            let predicted = case["preds"].as_array().unwrap().iter().map(class);
            assert_eq!(kappa(predicted, class(&case["label"])), case["kappa"].as_u64().unwrap() as usize, "{case}");
        }
    }

    const P: [f32; 4] = [0.1, 0.2, 0.6, 0.1];

    fn decided(
        strategy: Strategy,
        given: Option<Class>,
        kappa: Option<usize>,
        change: impl Fn(&mut LabelSettings),
    ) -> (Vec<Class>, Provenance) {
        let mut settings = LabelSettings { strategy, ..LabelSettings::default() };
        change(&mut settings);
        let set = decide(&Evidence { probabilities: P.to_vec(), kappa }, given, &settings);
        assert_eq!(set.prediction, Some(Prediction { class: 2, probability: 0.6, kappa }));
        (set.classes, set.provenance)
    }

    #[test]
    fn each_strategy_has_its_own_doubt() {
        let as_is = |_: &mut LabelSettings| {};
        for given in [0, 2] {
            assert_eq!(decided(Strategy::TopkAll, Some(given), None, as_is), (vec![1, 2], Provenance::Predicted));
        }
        assert_eq!(decided(Strategy::CrossfitDisagree, Some(2), None, as_is), (vec![2], Provenance::Agreed));
        assert_eq!(decided(Strategy::CrossfitDisagree, Some(1), None, as_is), (vec![1, 2], Provenance::Disagreed));
        // Clean keeps its given label, whatever the averaged prediction says.
        assert_eq!(decided(Strategy::Gaave, Some(3), Some(5), as_is), (vec![3], Provenance::Clean));
        assert_eq!(decided(Strategy::Gaave, Some(3), Some(4), as_is), (vec![1, 2], Provenance::Vulnerable));
        assert_eq!(decided(Strategy::Gaave, Some(3), Some(0), as_is), (vec![1, 2], Provenance::Noisy));
        let lenient = |s: &mut LabelSettings| s.kappa_min = 1;
        assert_eq!(decided(Strategy::Gaave, Some(3), Some(1), lenient), (vec![3], Provenance::Clean));
        assert_eq!(decided(Strategy::Gaave, Some(3), Some(0), lenient), (vec![1, 2], Provenance::Noisy));
        for strategy in [Strategy::TopkAll, Strategy::CrossfitDisagree, Strategy::Gaave] {
            assert_eq!(decided(strategy, None, None, as_is), (vec![1, 2], Provenance::Unlabelled));
        }
    }

    #[test]
    fn the_given_label_joins_only_where_it_is_asked_for_and_missing() {
        let with_given = |s: &mut LabelSettings| s.include_given = true;
        assert_eq!(decided(Strategy::TopkAll, Some(3), None, with_given).0, [1, 2, 3]);
        assert_eq!(decided(Strategy::TopkAll, Some(1), None, with_given).0, [1, 2]);
        assert_eq!(decided(Strategy::Gaave, Some(0), Some(2), with_given).0, [0, 1, 2]);
        assert_eq!(decided(Strategy::Gaave, None, None, with_given).0, [1, 2]);
    }

    #[test]
    fn ties_go_to_the_lower_class() {
        // Classes 0 and 3 are equally likely.
        let three = |s: &mut LabelSettings| s.k = 3;
        assert_eq!(decided(Strategy::TopkAll, Some(2), None, three).0, [0, 1, 2]);
        assert_eq!(ranked(&[0.25; 4]), [0, 1, 2, 3]);
    }
}
