//! The tables that can be run: the paper's own, with its figures, and ours.
//!
//! A row is a list of layers over the chosen preset: names of presets and `key=value`. The paper's figures are copied from its tables
//! (METHOD 4 says where they contradict each other); they belong to its data sets, its ViT-B/16 at 224 pixels and its 600 + 100 epochs,
//! and stand beside ours to compare orders, never values.

/// How a row's encoder starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// From the row's own kind of pretraining.
    Pretrained,
    Random,
}

/// One row of a table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Also the name of its run folders.
    pub name: &'static str,
    pub title: &'static str,
    pub start: Start,
    /// None: the paper has the row, moue cannot run it; says why.
    pub layers: Result<&'static [&'static str], &'static str>,
    /// In per cent, one for each of the table's columns.
    pub paper: &'static [Option<f64>],
}

/// A table.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    pub name: &'static str,
    pub title: &'static str,
    /// Laid over the chosen preset, under every row.
    pub base: &'static [&'static str],
    /// Data sets of the paper's figures.
    pub columns: &'static [&'static str],
    pub rows: &'static [Row],
}

const fn row(name: &'static str, title: &'static str, start: Start, layers: &'static [&'static str], paper: &'static [Option<f64>]) -> Row {
    Row { name, title, start, layers: Ok(layers), paper }
}

const fn missing(name: &'static str, title: &'static str, why: &'static str, paper: &'static [Option<f64>]) -> Row {
    Row { name, title, start: Start::Random, layers: Err(why), paper }
}

use Start::{Pretrained, Random};

/// Partial labels as in the paper's Table V: eq. 1 alone, without decoder, query loss or revision.
const VANILLA: &[&str] = &["decoder.enabled=false", "uniform.lambda=0", "revise.enabled=false"];
const SOFTMAX: &[&str] = &["decoder.enabled=false", "finetune.objective=ce"];
const FOUR: &[&str] = &["RAF-DB", "FERPlus", "AffectNet-7", "AffectNet-8"];
const THREE: &[&str] = &["RAF-DB", "FERPlus", "AffectNet-7"];

/// All tables, in the order in which they are listed.
pub const TABLES: &[Table] = &[
    Table {
        name: "table1",
        title: "the method beside its rivals (Table I, rows of partial-label learning)",
        base: &["paper"],
        columns: FOUR,
        rows: &[
            row(
                "rc",
                "RC",
                Random,
                &["resnet18", "decoder.enabled=false", "finetune.objective=rc"],
                &[Some(88.92), Some(88.53), Some(64.87), Some(61.63)],
            ),
            row(
                "lw",
                "LW",
                Random,
                &["resnet18", "decoder.enabled=false", "finetune.objective=lw"],
                &[Some(88.70), Some(88.10), Some(64.53), Some(61.46)],
            ),
            missing("pico", "PiCO", "not built", &[Some(88.53), Some(87.93), Some(64.35), Some(61.38)]),
            row(
                "cr_pll",
                "CR-PLL",
                Random,
                &["resnet18", "decoder.enabled=false", "finetune.objective=cr_pll"],
                &[Some(88.47), Some(88.01), Some(64.32), Some(61.37)],
            ),
            row(
                "baseline",
                "plain cross-entropy (theirs: from ImageNet)",
                Random,
                SOFTMAX,
                &[Some(88.36), Some(88.18), Some(64.61), Some(61.34)],
            ),
            row("ours", "the method", Pretrained, &[], &[Some(92.05), Some(91.11), Some(67.11), Some(64.12)]),
        ],
    },
    Table {
        name: "table5",
        title: "partial labels against softmax (Table V)",
        base: &["paper"],
        columns: THREE,
        rows: &[
            row(
                "resnet18-softmax",
                "ResNet-18 + softmax (theirs: from MS-Celeb-1M)",
                Random,
                &["resnet18", "decoder.enabled=false", "finetune.objective=ce"],
                &[Some(86.54), Some(87.37), Some(63.86)],
            ),
            row(
                "resnet18-pll",
                "ResNet-18 + PLL (theirs: from MS-Celeb-1M)",
                Random,
                &["resnet18", "decoder.enabled=false", "uniform.lambda=0", "revise.enabled=false"],
                &[Some(88.67), Some(88.40), Some(64.49)],
            ),
            row("maskfeat-softmax", "MaskFeat + softmax", Pretrained, SOFTMAX, &[Some(87.85), Some(87.92), Some(64.31)]),
            row("maskfeat-pll", "MaskFeat + PLL", Pretrained, VANILLA, &[Some(90.35), Some(90.24), Some(66.12)]),
        ],
    },
    Table {
        name: "table6",
        title: "the whole method without and with pretraining (Table VI)",
        base: &["paper"],
        columns: FOUR,
        rows: &[
            row("random", "without pretraining", Random, &[], &[Some(90.81), Some(89.63), Some(65.23), Some(62.45)]),
            row("pretrained", "with pretraining", Pretrained, &[], &[Some(92.05), Some(91.11), Some(67.11), Some(64.12)]),
        ],
    },
    Table {
        name: "table7",
        title: "kinds of pretraining, under vanilla PLL (Table VII)",
        base: &["paper"],
        columns: THREE,
        rows: &[
            row(
                "resnet18",
                "ResNet-18 (theirs: supervised, MS-Celeb-1M)",
                Random,
                &["resnet18", "decoder.enabled=false", "uniform.lambda=0", "revise.enabled=false"],
                &[Some(88.67), Some(88.40), Some(64.49)],
            ),
            missing("moco", "MoCo", "not built", &[Some(88.59), Some(88.14), Some(63.98)]),
            row(
                "simmim",
                "SimMIM",
                Pretrained,
                &["simmim", "decoder.enabled=false", "uniform.lambda=0", "revise.enabled=false"],
                &[Some(89.60), Some(89.78), Some(65.34)],
            ),
            row(
                "mae",
                "MAE",
                Pretrained,
                &["mae", "decoder.enabled=false", "uniform.lambda=0", "revise.enabled=false"],
                &[Some(89.99), Some(89.70), Some(65.79)],
            ),
            row(
                "mae_hog",
                "MAE with HOG targets (not in the paper; C4)",
                Pretrained,
                &["mae_hog", "decoder.enabled=false", "uniform.lambda=0", "revise.enabled=false"],
                &[None, None, None],
            ),
            row("maskfeat", "MaskFeat", Pretrained, VANILLA, &[Some(90.35), Some(90.24), Some(66.12)]),
        ],
    },
    Table {
        name: "table8",
        title: "decoder, uniformity loss, confidence revision (Table VIII; its text says FERPlus where the table says AffectNet-7, C6)",
        base: &["paper"],
        columns: &["RAF-DB", "AffectNet-7"],
        rows: &[
            row("none", "eq. 1 alone", Pretrained, VANILLA, &[Some(90.35), Some(66.12)]),
            row(
                "decoder",
                "+ decoder",
                Pretrained,
                &["uniform.lambda=0", "queries.init=random", "revise.enabled=false"],
                &[Some(91.29), Some(66.67)],
            ),
            row("decoder-uniform", "+ decoder, uniformity", Pretrained, &["revise.enabled=false"], &[Some(91.64), Some(66.90)]),
            row(
                "decoder-revision",
                "+ decoder, revision",
                Pretrained,
                &["uniform.lambda=0", "queries.init=random"],
                &[Some(91.89), Some(66.93)],
            ),
            row("all", "+ decoder, uniformity, revision", Pretrained, &[], &[Some(92.05), Some(67.11)]),
        ],
    },
    Table {
        name: "table9",
        title: "temperature of the uniformity loss (Table IX; its figures are 0.30 above Table I's, C3)",
        base: &["paper"],
        columns: &["RAF-DB", "FERPlus"],
        rows: &[
            row("tau-0.001", "tau 0.001", Pretrained, &["uniform.tau=0.001"], &[Some(92.35), Some(91.41)]),
            row("tau-0.005", "tau 0.005", Pretrained, &["uniform.tau=0.005"], &[Some(91.78), Some(90.67)]),
            row("tau-0.01", "tau 0.01", Pretrained, &["uniform.tau=0.01"], &[Some(91.52), Some(90.18)]),
        ],
    },
    Table {
        name: "k",
        title: "size of the candidate sets (section IV-E7)",
        base: &["paper"],
        columns: &["RAF-DB"],
        rows: &[
            row("k-2", "k = 2", Pretrained, &["labels.k=2"], &[Some(92.35)]),
            row("k-3", "k = 3", Pretrained, &["labels.k=3"], &[Some(91.94)]),
            row("k-4", "k = 4", Pretrained, &["labels.k=4"], &[Some(90.01)]),
        ],
    },
    Table {
        name: "theta",
        title: "threshold of the revision (figures 6 and 7, whose values are lost)",
        base: &["paper"],
        columns: &[],
        rows: &[
            row("theta-0", "theta 0", Pretrained, &["revise.theta=0"], &[]),
            row("theta-0.1", "theta 0.1", Pretrained, &["revise.theta=0.1"], &[]),
            row("theta-0.2", "theta 0.2", Pretrained, &["revise.theta=0.2"], &[]),
            row("theta-0.3", "theta 0.3", Pretrained, &["revise.theta=0.3"], &[]),
            row("theta-0.4", "theta 0.4", Pretrained, &["revise.theta=0.4"], &[]),
            row("theta-0.5", "theta 0.5", Pretrained, &["revise.theta=0.5"], &[]),
            row("theta-0.6", "theta 0.6", Pretrained, &["revise.theta=0.6"], &[]),
            row("theta-0.7", "theta 0.7", Pretrained, &["revise.theta=0.7"], &[]),
            row("theta-0.8", "theta 0.8", Pretrained, &["revise.theta=0.8"], &[]),
            row("theta-0.9", "theta 0.9", Pretrained, &["revise.theta=0.9"], &[]),
            row("theta-1", "theta 1 (never one-hot)", Pretrained, &["revise.theta=1"], &[]),
        ],
    },
    Table {
        name: "objectives",
        title: "every objective on the same pretrained network",
        base: &[],
        columns: &[],
        rows: &[
            row("ce", "plain cross-entropy on majority", Pretrained, &["finetune.objective=ce"], &[]),
            row("ce_soft", "cross-entropy on vote shares", Pretrained, &["finetune.objective=ce_soft"], &[]),
            row("ce_smooth", "label smoothing on majority", Pretrained, &["finetune.objective=ce_smooth"], &[]),
            row("proden", "PRODEN", Pretrained, &["finetune.objective=proden"], &[]),
            row("rc", "RC", Pretrained, &["finetune.objective=rc"], &[]),
            row("cc", "CC", Pretrained, &["finetune.objective=cc"], &[]),
            row("lw", "LW", Pretrained, &["finetune.objective=lw"], &[]),
            row("cr_pll", "CR-PLL", Pretrained, &["finetune.objective=cr_pll"], &[]),
            row("paper", "ours, preset paper", Pretrained, &["paper"], &[]),
            row("robust", "ours, preset robust", Pretrained, &["robust"], &[]),
            row("preset", "ours, as the chosen preset has it", Pretrained, &[], &[]),
        ],
    },
    Table {
        name: "pretraining",
        title: "what pretraining gives each objective",
        base: &[],
        columns: &[],
        rows: &[
            row("ce-random", "plain cross-entropy, from random weights", Random, &["finetune.objective=ce"], &[]),
            row("ce-pretrained", "plain cross-entropy, pretrained", Pretrained, &["finetune.objective=ce"], &[]),
            row("ce_soft-random", "cross-entropy on vote shares, from random weights", Random, &["finetune.objective=ce_soft"], &[]),
            row("ce_soft-pretrained", "cross-entropy on vote shares, pretrained", Pretrained, &["finetune.objective=ce_soft"], &[]),
            row("paper-random", "ours, preset paper, from random weights", Random, &["paper"], &[]),
            row("paper-pretrained", "ours, preset paper, pretrained", Pretrained, &["paper"], &[]),
            row("robust-random", "ours, preset robust, from random weights", Random, &["robust"], &[]),
            row("robust-pretrained", "ours, preset robust, pretrained", Pretrained, &["robust"], &[]),
        ],
    },
];

/// The table of that name.
pub fn find(name: &str) -> Option<&'static Table> {
    TABLES.iter().find(|t| t.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Origin, Resolved};
    use std::collections::HashSet;

    #[test]
    fn every_row_resolves_and_differs_from_its_neighbours() {
        for table in TABLES {
            let mut seen = HashSet::new();
            for row in table.rows {
                assert!(seen.insert(row.name), "{}: {} occurs twice", table.name, row.name);
                assert!(row.paper.len() == table.columns.len(), "{}: {}", table.name, row.name);
                let layers = table.base.iter().chain(row.layers.unwrap_or_default());
                let resolved = layers.fold(Resolved::default(), |r, layer| r.with_layer(layer).unwrap());
                resolved.checked(&Origin::Flag).unwrap();
            }
            let distinct: HashSet<String> = table.rows.iter().map(|r| format!("{:?} {:?}", r.start, r.layers)).collect();
            assert_eq!(distinct.len() + table.rows.iter().filter(|r| r.layers.is_err()).count().saturating_sub(1), table.rows.len());
        }
    }
}
