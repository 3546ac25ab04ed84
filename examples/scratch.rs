#[global_allocator]
static A: mimalloc::MiMalloc = mimalloc::MiMalloc;
use burn::module::{Module, ModuleMapper, Param};
use burn::optim::{AdamWConfig, GradientsAccumulator, GradientsParams};
use burn::prelude::*;
use moue::config::Resolved;
use moue::model::{init::Init, *};
use moue::random::*;
use std::time::Instant;
struct Leaf;
impl ModuleMapper for Leaf {
    fn map_float<const D: usize>(&mut self, p: Param<Tensor<D>>) -> Param<Tensor<D>> { p.map(|t| Tensor::from_inner(t.inner()).require_grad()) }
}
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let threads: usize = a[1].parse().unwrap();
    let batch: usize = a[2].parse().unwrap();
    let mut r = Resolved::default().with_preset("ferplus-cpu").unwrap();
    for s in &a[3..] { r = r.with_flag(s).unwrap(); }
    let s = r.settings().clone();
    let base = Device::flex();
    let dev = base.clone().autodiff();
    let init = Init { streams: Streams::new(1), device: &dev };
    let mut model = MaskedVit::new(&init, &s);
    println!("params {}", model.num_params());
    let mut opt = AdamWConfig::new().init();
    let n = s.grid().pow(2);
    let t = moue::kernels::reference::hog::BINS * (s.vit.patch / s.hog.cell).pow(2);
    let img: Vec<f32> = (0..batch * n * s.vit.patch.pow(2)).map(|i| ((i * 7919) % 255) as f32 / 255.0 - 0.5).collect();
    let pools: Vec<_> = (0..threads).map(|_| rayon::ThreadPoolBuilder::new().num_threads(if threads == 1 { 2 } else { 1 }).build().unwrap()).collect();
    let (mut tf, mut to) = (0.0, 0.0);
    for step in 0..8 {
        let t0 = Instant::now();
        let per = batch / threads;
        let grads: Vec<(GradientsParams, f32)> = std::thread::scope(|sc| {
            let hs: Vec<_> = (0..threads).map(|k| {
                let model = model.clone().map(&mut Leaf);
                let (img, dev, pool) = (&img, &dev, &pools[k]);
                sc.spawn(move || pool.install(|| {
                    let x = Tensor::<3>::from_data(TensorData::new(img[k * per * n * 64..(k + 1) * per * n * 64].to_vec(), [per, n, 64]), dev);
                    let mask = Tensor::<3>::zeros([per, n, 1], dev);
                    let y = model.forward(x, mask, 0.0, &mut Noise::none());
                    let l = (y - 0.1).square().mean() / threads as f32;
                    let v: f32 = l.clone().into_scalar();
                    (GradientsParams::from_grads(l.backward(), &model), v)
                }))
            }).collect();
            hs.into_iter().map(|h| h.join().unwrap()).collect()
        });
        let mut acc = GradientsAccumulator::new();
        let mut loss = 0.0;
        for (g, l) in grads { acc.accumulate(&model, g); loss += l; }
        let t1 = t0.elapsed().as_secs_f64();
        model = opt.step(1e-3, model, acc.grads());
        let t2 = t0.elapsed().as_secs_f64();
        if step >= 3 { tf += t1; to += t2 - t1; }
        if step == 7 { println!("loss {loss} fwd+bwd {:.3} opt {:.3} s -> {:.0} img/s (token dim {t})", tf / 5.0, to / 5.0, batch as f64 * 5.0 / (tf + to)); }
    }
}
