//! From vote counts to one label: the rules that the FERPlus literature uses, and how ambiguous a vote is.
//!
//! Every rule here either names one class or says why it does not. None of them guesses between an emotion and `unknown`: what is
//! left open is counted under its reason by the importer.

use super::Class;
use clap::ValueEnum;
use std::fmt;

/// Votes below this count are taken for slips of single annotators.
pub const MIN_VOTES: u32 = 2;

/// How votes become a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, ValueEnum)]
pub enum Rule {
    /// Official FERPlus rule: set single votes to zero; keep the face if one emotion has more than half of the remaining votes
    #[default]
    Majority,
    /// Most votes win, a tie goes to the column that comes first; dropped if the winner is no emotion (unknown, NF)
    Argmax,
}

impl Rule {
    /// The rule in words precise enough to repeat it; goes on the label card.
    pub fn describe(self) -> &'static str {
        match self {
            Rule::Majority => {
                "majority: single votes set to zero; label = the column with more than half of the remaining votes of all columns; \
                 faces without such a column, or where it is no class, are dropped"
            }
            Rule::Argmax => {
                "argmax: label = the column with most votes of all columns, ties to the first column; faces where it is no class are dropped"
            }
        }
    }
}

/// Why a vote gives no label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    /// Nobody voted, or only single votes that the rule sets to zero.
    NoVotes,
    /// No column has more than half of the remaining votes.
    NoMajority,
    /// An extra column (`unknown`, `NF`) wins.
    NoClass,
}

impl Open {
    pub fn reason(self) -> &'static str {
        match self {
            Open::NoVotes => "vote rule: no votes left to count",
            Open::NoMajority => "vote rule: no majority",
            Open::NoClass => "vote rule: the winner is no class (unknown, NF)",
        }
    }
}

impl fmt::Display for Open {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

/// Applies `rule` to `votes`, whose first `classes` columns are classes.
///
/// # Errors
/// The reason why the rule leaves the face open.
pub fn decide(votes: &[u32], classes: usize, rule: Rule) -> Result<Class, Open> {
    let counted = |v: u32| if rule == Rule::Majority && v < MIN_VOTES { 0 } else { u64::from(v) };
    let total: u64 = votes.iter().map(|&v| counted(v)).sum();
    // The first of several maxima, as numpy's argmax.
    let (winner, most) = votes.iter().map(|&v| counted(v)).enumerate().fold((0, 0), |best, v| if v.1 > best.1 { v } else { best });
    if total == 0 {
        return Err(Open::NoVotes);
    }
    if rule == Rule::Majority && 2 * most <= total {
        return Err(Open::NoMajority);
    }
    if winner >= classes {
        return Err(Open::NoClass);
    }
    Ok(winner as Class)
}

/// Whether partial-label training can use the votes although no rule decides them: a class with at least [`MIN_VOTES`] votes.
pub fn usable(votes: &[u32], classes: usize) -> bool {
    votes.iter().take(classes).any(|&v| v >= MIN_VOTES)
}

/// Entropy in bits of the votes on the first `classes` columns; `None` if none of them has a vote.
pub fn entropy(votes: &[u32], classes: usize) -> Option<f64> {
    let votes = &votes[..classes.min(votes.len())];
    let total: f64 = votes.iter().map(|&v| f64::from(v)).sum();
    if total == 0.0 {
        return None;
    }
    let sum: f64 = votes.iter().filter(|&&v| v > 0).map(|&v| f64::from(v) / total).map(|p| p * p.log2()).sum();
    // `0.0 - sum` and not `-sum`: a unanimous vote has entropy 0, not -0.
    Some(0.0 - sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn majority_agrees_with_the_golden_votes() {
        let golden: serde_json::Value = serde_json::from_str(include_str!("../../tests/golden/misc.json")).unwrap();
        for row in golden["ferplus"].as_array().unwrap() {
            let votes: Vec<u32> = serde_json::from_value(row["votes"].clone()).unwrap();
            // The reference answers with a column of ten; 8 stands for `unknown` and for every undecided vote, 9 for NF.
            let expected = row["official_majority"].as_u64().unwrap();
            match decide(&votes, 8, Rule::Majority) {
                Ok(class) => assert_eq!(u64::from(class), expected, "{votes:?}"),
                Err(open) => assert!(expected == 8 || (expected == 9 && open == Open::NoClass), "{votes:?} {open}"),
            }
        }
    }

    #[test]
    fn each_rule_says_why_it_leaves_a_vote_open() {
        assert_eq!(decide(&[1, 1, 1, 0], 3, Rule::Majority), Err(Open::NoVotes));
        assert_eq!(decide(&[3, 3, 0, 0], 3, Rule::Majority), Err(Open::NoMajority));
        assert_eq!(decide(&[0, 2, 0, 5], 3, Rule::Majority), Err(Open::NoClass));
        // The single vote counts for nothing: 2 of 2, not 2 of 3.
        assert_eq!(decide(&[2, 1, 0, 0], 3, Rule::Majority), Ok(0));
        assert_eq!(decide(&[0, 3, 3, 0], 3, Rule::Argmax), Ok(1));
        assert_eq!(decide(&[0, 3, 0, 3], 3, Rule::Argmax), Ok(1));
        assert_eq!(decide(&[0, 2, 0, 3], 3, Rule::Argmax), Err(Open::NoClass));
        assert_eq!(decide(&[0; 4], 3, Rule::Argmax), Err(Open::NoVotes));
        assert_eq!(decide(&[u32::MAX; 3], 3, Rule::Majority), Err(Open::NoMajority));
    }

    #[test]
    fn entropy_is_in_bits_over_the_classes() {
        assert_eq!(entropy(&[5, 0, 9], 2), Some(0.0));
        assert_eq!(entropy(&[5, 5, 9], 2), Some(1.0));
        assert_eq!(entropy(&[0, 0, 9], 2), None);
        assert!(usable(&[2, 0, 9], 2) && !usable(&[1, 1, 9], 2));
    }
}
