//! moue trains a facial-expression recogniser from ambiguous labels, on any GPU or CPU, from one binary, and shows how every face's label
//! is being decided.
//!
//! ```text
//! cli -> config (what to do, every value with its origin) -> pipeline (the stages of a run)
//!            |
//!        dataset (faces, votes, packs) -> labels (candidate sets, confidences)
//!            |                                 |
//!        transform (align, augment) -> engine (loader, shards, optimiser, checkpoints)
//!                                          |        runs pretrain (MaskFeat, MAE, SimMIM) and finetune (partial labels, rivals, plain ones);
//!                                          |        crossfit finetunes on folds and predicts the rest: candidate sets without votes
//!                                          |        over model (ViT, query decoder) and kernels (HOG, patches)
//!                                          v
//!                                  run (folder, manifest, events) -> eval, progress views, dashboard, report, `moue runs`
//! ```
//! `ablate` makes tables of whole runs; [`audit`] ranks the labels of one by how much speaks against them; [`weights`] exchanges networks
//! with other programs.
//! Data flows one way: below the resolved configuration nothing reads a flag or an environment variable. [`random`] names every random
//! stream; [`limits`] bounds what is read of files that strangers made; [`failure`] says which errors are the user's to mend; [`report`]
//! draws what is to be looked at, and makes the page of a run; `doctor` holds a configuration against machine and data before it is trained,
//! `selftest` a device against the CPU; `bench` measures training beside a PyTorch twin. Modules that compute on tensors need the feature
//! `train` (default); all others, and the commands built on them, do without a GPU library.

#[cfg(feature = "train")]
pub mod ablate;
pub mod audit;
#[cfg(feature = "train")]
pub mod bench;
pub mod cli;
pub mod config;
#[cfg(feature = "train")]
pub mod crossfit;
pub mod dashboard;
pub mod dataset;
#[cfg(feature = "train")]
pub mod doctor;
#[cfg(feature = "train")]
pub mod engine;
pub mod eval;
pub mod failure;
#[cfg(feature = "train")]
pub mod finetune;
pub mod kernels;
pub mod labels;
pub mod limits;
#[cfg(feature = "train")]
pub mod model;
#[cfg(feature = "train")]
pub mod pipeline;
#[cfg(feature = "train")]
pub mod pretrain;
pub mod random;
pub mod report;
pub mod run;
#[cfg(feature = "train")]
pub mod selftest;
pub mod transform;
pub mod weights;
