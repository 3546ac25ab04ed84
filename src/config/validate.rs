//! What types cannot say of settings: ranges, and values that must fit each other; and what follows from several of them together.

use super::{Backbone, MaskSettings, Settings, Stem};

/// Blocks of ResNet-18, two in each of four stages.
pub const RESNET_BLOCKS: usize = 8;

impl Settings {
    /// Checks what types cannot: ranges and settings that must fit each other.
    ///
    /// # Errors
    /// The offending setting and what would be allowed.
    pub fn validate(&self) -> Result<(), String> {
        let s = self;
        let ensure = |ok: bool, message: &str| if ok { Ok(()) } else { Err(message.to_string()) };
        let share = |name: &str, v: f64| ensure((0.0..=1.0).contains(&v), &format!("{name} = {v} must lie in [0, 1]"));
        let positive = |name: &str, v: usize| ensure(v > 0, &format!("{name} must be at least 1"));
        for (name, v) in [
            ("data.size", s.data.size),
            ("vit.patch", s.vit.patch),
            ("vit.dim", s.vit.dim),
            ("vit.depth", s.vit.depth),
            ("vit.heads", s.vit.heads),
            ("decoder.layers", s.decoder.layers),
            ("decoder.heads", s.decoder.heads),
            ("hog.cell", s.hog.cell),
            ("mask.unit", s.mask.unit),
            ("mim.decoder_dim", s.mim.decoder_dim),
            ("mim.decoder_depth", s.mim.decoder_depth),
            ("mim.decoder_heads", s.mim.decoder_heads),
            ("pretrain.batch", s.pretrain.batch),
            ("finetune.batch", s.finetune.batch),
            ("finetune.epochs", s.finetune.epochs),
            ("labels.k", s.labels.k),
            ("labels.fold_epochs", s.labels.fold_epochs),
            ("labels.kappa_min", s.labels.kappa_min),
            ("run.log_every", s.run.log_every),
            ("run.evaluate_every", s.run.evaluate_every),
            ("run.checkpoint_every", s.run.checkpoint_every),
            ("run.bad_steps", s.run.bad_steps),
            ("run.evaluate_batch", s.run.evaluate_batch),
        ] {
            positive(name, v)?;
        }
        // Beyond what any network here has: settings also come with files of weights.
        for (name, v, most) in [
            ("vit.dim", s.vit.dim, 8192),
            ("vit.depth", s.vit.depth, 256),
            ("decoder.layers", s.decoder.layers, 256),
            ("resnet.width", s.resnet.width, 1024),
            ("mim.decoder_dim", s.mim.decoder_dim, 8192),
            ("mim.decoder_depth", s.mim.decoder_depth, 256),
        ] {
            ensure(v <= most, &format!("{name} = {v} must be at most {most}"))?;
        }
        for (name, v) in [("vit.mlp_ratio", s.vit.mlp_ratio), ("decoder.mlp_ratio", s.decoder.mlp_ratio)] {
            ensure(v <= 64.0, &format!("{name} = {v} must be at most 64"))?;
        }
        ensure(s.data.size <= 1024, "data.size must be at most 1024 pixels")?;
        ensure(matches!(s.data.channels, 1 | 3), "data.channels must be 1 or 3")?;
        ensure(
            s.data.size.is_multiple_of(s.vit.patch),
            &format!("data.size = {} must be a multiple of vit.patch = {}", s.data.size, s.vit.patch),
        )?;
        let stem_fits =
            s.vit.stem == Stem::Patch || s.vit.patch.is_power_of_two() && s.vit.patch > 1 && s.vit.dim.is_multiple_of(s.vit.patch / 2);
        ensure(stem_fits, "vit.stem = \"conv\" needs a vit.patch that is a power of two above 1, and vit.dim a multiple of half of it")?;
        ensure(s.vit.patch.is_multiple_of(s.hog.cell), &format!("hog.cell = {} must divide vit.patch = {}", s.hog.cell, s.vit.patch))?;
        for (name, heads) in [("vit.heads", s.vit.heads), ("decoder.heads", s.decoder.heads)] {
            ensure(s.vit.dim.is_multiple_of(heads), &format!("{name} = {heads} must divide vit.dim = {}", s.vit.dim))?;
        }
        ensure(!s.decoder.use_cls || s.vit.cls, "decoder.use_cls needs vit.cls = true")?;
        let transformer = s.encoder.backbone == Backbone::Vit;
        ensure(!s.decoder.use_cls || transformer, "decoder.use_cls needs encoder.backbone = \"vit\": resnet18 has no class token")?;
        ensure(
            s.resnet.width > 0 && s.resnet.width.is_multiple_of(2),
            &format!("resnet.width = {} must be even and above 0", s.resnet.width),
        )?;
        for (name, v) in [
            ("mask.ratio", s.mask.ratio),
            ("labels.share", s.labels.share),
            ("labels.max_share", s.labels.max_share),
            ("labels.attack_eps", s.labels.attack_eps),
            ("labels.attack_step", s.labels.attack_step),
            ("revise.theta", s.revise.theta),
            ("revise.ema", s.revise.ema),
            ("finetune.erase", s.finetune.erase),
            ("finetune.mask_ratio", s.finetune.mask_ratio),
            ("finetune.layer_decay", s.finetune.layer_decay),
            ("finetune.smoothing", s.finetune.smoothing),
            ("finetune.cr_ramp", s.finetune.cr_ramp),
            ("pretrain.drop_path", s.pretrain.drop_path),
            ("finetune.drop_path", s.finetune.drop_path),
            ("decoder.dropout", s.decoder.dropout),
        ] {
            share(name, v)?;
        }
        for (name, v) in [
            ("decoder.dropout", s.decoder.dropout),
            ("pretrain.drop_path", s.pretrain.drop_path),
            ("finetune.drop_path", s.finetune.drop_path),
        ] {
            ensure(v < 1.0, &format!("{name} = {v} must be below 1"))?;
        }
        for (name, v) in [("pretrain.crop_min", s.pretrain.crop_min), ("finetune.crop_min", s.finetune.crop_min)] {
            ensure(v > 0.0 && v <= 1.0, &format!("{name} = {v} must lie in (0, 1]"))?;
        }
        for (name, v) in [
            ("pretrain.lr", s.pretrain.lr),
            ("pretrain.min_lr", s.pretrain.min_lr),
            ("pretrain.warmup", s.pretrain.warmup),
            ("pretrain.weight_decay", s.pretrain.weight_decay),
            ("pretrain.clip", s.pretrain.clip),
            ("finetune.lr", s.finetune.lr),
            ("finetune.min_lr", s.finetune.min_lr),
            ("finetune.warmup", s.finetune.warmup),
            ("finetune.weight_decay", s.finetune.weight_decay),
            ("finetune.clip", s.finetune.clip),
            ("finetune.rotate", s.finetune.rotate),
            ("finetune.lw_beta", s.finetune.lw_beta),
            ("uniform.lambda", s.uniform.lambda),
            ("vit.mlp_ratio", s.vit.mlp_ratio),
            ("decoder.mlp_ratio", s.decoder.mlp_ratio),
        ] {
            ensure(v.is_finite() && v >= 0.0, &format!("{name} = {v} must be a finite number, at least 0"))?;
        }
        for (name, v) in [
            ("pretrain.beta1", s.pretrain.beta1),
            ("pretrain.beta2", s.pretrain.beta2),
            ("finetune.beta1", s.finetune.beta1),
            ("finetune.beta2", s.finetune.beta2),
        ] {
            ensure((0.0..1.0).contains(&v), &format!("{name} = {v} must lie in [0, 1)"))?;
        }
        ensure((2..=100).contains(&s.labels.folds), &format!("labels.folds = {} must lie in 2 to 100", s.labels.folds))?;
        ensure(s.labels.attack_steps <= 100, &format!("labels.attack_steps = {} must be at most 100", s.labels.attack_steps))?;
        ensure(
            s.labels.kappa_min <= s.labels.attack_steps + 1,
            &format!(
                "labels.kappa_min = {} must be at most {}, the iterates of labels.attack_steps = {}",
                s.labels.kappa_min,
                s.labels.attack_steps + 1,
                s.labels.attack_steps
            ),
        )?;
        ensure(s.uniform.tau > 0.0, "uniform.tau must be above 0")?;
        ensure(s.vit.mlp_ratio * s.vit.dim as f64 >= 1.0, "vit.mlp_ratio leaves no hidden unit")?;
        ensure(s.decoder.mlp_ratio * s.vit.dim as f64 >= 1.0, "decoder.mlp_ratio leaves no hidden unit")?;
        s.validate_masks()
    }

    /// Masks against the network that is to see them.
    fn validate_masks(&self) -> Result<(), String> {
        let s = self;
        let ensure = |ok: bool, message: String| if ok { Ok(()) } else { Err(message) };
        let (grid, heads, dim) = (s.grid(), s.mim.decoder_heads, s.mim.decoder_dim);
        ensure(dim.is_multiple_of(heads), format!("mim.decoder_heads = {heads} must divide mim.decoder_dim = {dim}"))?;
        ensure(s.vit.mlp_ratio * dim as f64 >= 1.0, format!("mim.decoder_dim = {dim} leaves no hidden unit under vit.mlp_ratio"))?;
        ensure(
            grid.is_multiple_of(s.mask.unit),
            format!("mask.unit = {} must divide the {grid} patches along a side (data.size / vit.patch)", s.mask.unit),
        )?;
        // A convolution at the border of a visible patch would look for its hidden neighbour.
        let whole = s.vit.stem == Stem::Patch;
        let patch_stem = "leaves hidden patches out, but vit.stem = \"conv\" looks over the borders of patches: use vit.stem = \"patch\"";
        if s.pretrain.method.visible_only() {
            ensure(whole, format!("pretrain.method = \"{}\" {patch_stem}, or maskfeat or simmim", s.pretrain.method.name()))?;
            let (hidden, all) = (s.hidden_patches(), grid * grid);
            ensure(
                0 < hidden && hidden < all,
                format!(
                    "pretrain.method = \"{}\" needs patches to see and patches to predict: mask.ratio = {} hides {hidden} of {all}",
                    s.pretrain.method.name(),
                    s.mask.ratio
                ),
            )?;
        }
        if let Some(visible) = s.finetune_patches() {
            let backbone = "finetune.mask_ratio needs encoder.backbone = \"vit\": resnet18 sees whole faces";
            ensure(s.encoder.backbone == Backbone::Vit, backbone.into())?;
            ensure(whole, format!("finetune.mask_ratio = {} {patch_stem}", s.finetune.mask_ratio))?;
            ensure(visible > 0, format!("finetune.mask_ratio = {} leaves none of {} patches", s.finetune.mask_ratio, grid * grid))?;
        }
        Ok(())
    }

    /// Blocks of the encoder.
    pub fn encoder_blocks(&self) -> usize {
        match self.encoder.backbone {
            Backbone::Vit => self.vit.depth,
            Backbone::Resnet18 => RESNET_BLOCKS,
        }
    }

    /// Width of the tokens that the head reads: resnet18 is projected to the query decoder's width, a pooled head takes it as it is.
    pub fn token_width(&self) -> usize {
        match self.encoder.backbone {
            Backbone::Resnet18 if !self.decoder.enabled => 8 * self.resnet.width,
            _ => self.vit.dim,
        }
    }

    /// Values that the encoder has at least: its matrices and positions. Tells, before a network is made, whether a file can hold it.
    pub fn least_encoder(&self) -> u64 {
        let s = self;
        match s.encoder.backbone {
            Backbone::Vit => {
                let ends = s.grid().pow(2) * s.vit.dim;
                (ends + blocks(s.vit.depth, s.vit.dim, s.vit.mlp_ratio)) as u64
            }
            // The last stage's three convolutions of equal width, 3 x 3 each.
            Backbone::Resnet18 => (3 * 9 * (8 * s.resnet.width).pow(2)) as u64,
        }
    }

    /// The same of the head for so many classes.
    pub fn least_head(&self, classes: usize) -> u64 {
        let layers = if self.decoder.enabled { blocks(self.decoder.layers, self.vit.dim, self.decoder.mlp_ratio) } else { 0 };
        layers as u64 + classes as u64 * self.token_width() as u64
    }

    /// The same of the decoder that predicts hidden patches from visible ones.
    pub fn least_mim_decoder(&self) -> u64 {
        let width = self.mim.decoder_dim;
        (self.grid().pow(2) * width + blocks(self.mim.decoder_depth, width, self.vit.mlp_ratio)) as u64
    }

    /// Patches along one side of the input.
    pub fn grid(&self) -> usize {
        self.data.size / self.vit.patch
    }

    /// Patches of a face that pretraining hides, where masks are exact.
    pub fn hidden_patches(&self) -> usize {
        self.mask.hidden_units(self.grid()) * self.mask.unit.pow(2)
    }

    /// Patches of a face that the encoder sees in finetuning, where that is not all of them.
    pub fn finetune_patches(&self) -> Option<usize> {
        let share = 1.0 - self.finetune.mask_ratio;
        (share < 1.0).then(|| (self.grid().pow(2) as f64 * share).round() as usize)
    }
}

/// Values in the matrices of transformer blocks: queries, keys, values and output, and two layers to and from the hidden width.
fn blocks(depth: usize, width: usize, mlp_ratio: f64) -> usize {
    let hidden = (width as f64 * mlp_ratio).round() as usize;
    depth * width * (4 * width + 2 * hidden)
}

impl MaskSettings {
    /// Units to hide on a grid of `grid` x `grid` patches. A positive ratio hides something, also on the smallest grid.
    pub fn hidden_units(&self, grid: usize) -> usize {
        let units = (grid / self.unit).pow(2);
        let target = units as f64 * self.ratio;
        // Up from what is more than rounding of the product.
        let target = if self.unit > 1 { (target - 1e-9).ceil() } else { target.round() };
        (target as usize).clamp(usize::from(self.ratio > 0.0), units)
    }
}
