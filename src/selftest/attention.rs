//! Checks of attention, of tokens over themselves and of queries over others: golden vectors, and more sizes beside the CPU in double
//! precision.

use super::kernels::upload;
use super::products::{BOUND, BURNS_BOUND, HALVES_BOUND, NO_HALVES, computes, held, way};
use super::{Finding, Golden, relative_error};
use crate::engine::read_values;
use crate::kernels::layers::Layers;
use crate::kernels::reference::attention::{Attention, attention, gradients};
use anyhow::Result;
use burn::backend::Dispatch;
use burn::prelude::*;

/// Queries over other tokens: one, less than and as many as are read at once, and more; keys that fill whole tiles and rows, or do not.
const QUERIES: [usize; 4] = [1, 7, 8, 33];
const KEYS: [usize; 4] = [5, 17, 196, 197];

/// What is read and the gradient of qkv, from qkv `[B, N, 3 D]` and the gradient of what is read.
fn attend_themselves(qkv: Tensor<3>, gradient: Tensor<3>, heads: usize) -> [Tensor<3>; 2] {
    let [qkv, gradient] = [qkv, gradient].map(Tensor::into_dispatch);
    let (read, weights) = <Dispatch as Layers>::self_attention_with_weights(qkv.clone(), heads);
    [read, <Dispatch as Layers>::self_attention_gradient(qkv, weights, gradient, heads)].map(Tensor::from_dispatch)
}

/// What is read, and the gradients of queries, keys and values, from these and the gradient of what is read.
fn attend_others(inputs: [Tensor<3>; 4], heads: usize) -> [Tensor<3>; 4] {
    let [q, k, v, gradient] = inputs.map(Tensor::into_dispatch);
    let (read, weights) = <Dispatch as Layers>::attention_with_weights(q.clone(), k.clone(), v.clone(), heads);
    let (of_q, of_k, of_v) = <Dispatch as Layers>::attention_gradients(q, k, v, weights, gradient, heads);
    [read, of_q, of_k, of_v].map(Tensor::from_dispatch)
}

/// Queries, keys, values, and the gradient of what is read.
fn inputs(s: &Attention, halves: bool) -> [Vec<f32>; 4] {
    let parts = [("queries", s.queries), ("keys", s.keys), ("values", s.keys), ("of read", s.queries)];
    parts.map(|(name, tokens)| held(name, s.samples * tokens * s.width, halves))
}

/// Values of tokens, `[B, N, D]`.
fn tokens(values: &[f32], s: &Attention, halves: bool, device: &Device) -> Tensor<3> {
    upload(values, [s.samples, values.len() / s.samples / s.width, s.width], halves, device)
}

fn golden(device: &Device, halves: bool) -> Result<Finding> {
    if !computes(device, halves) {
        return Ok(Finding::nothing(NO_HALVES));
    }
    let golden = Golden::attention()?;
    let mut worst = 0.0f64;
    for stem in golden.stems(".heads")? {
        let name = |part: &str| format!("{stem}.{part}");
        let tensor = |part: &str| Ok::<_, anyhow::Error>(upload(&golden.floats(&name(part))?, golden.shape(&name(part))?, halves, device));
        let heads = golden.ints(&name("heads"))?[0] as usize;
        let made: Vec<(&str, Tensor<3>)> = if golden.has(&name("qkv")) {
            ["read", "of_qkv"].into_iter().zip(attend_themselves(tensor("qkv")?, tensor("g")?, heads)).collect()
        } else {
            let inputs = [tensor("q")?, tensor("k")?, tensor("v")?, tensor("g")?];
            ["read", "of_q", "of_k", "of_v"].into_iter().zip(attend_others(inputs, heads)).collect()
        };
        for (part, ours) in made {
            worst = worst.max(relative_error(&read_values(ours)?, &golden.floats(&name(part))?));
        }
    }
    Ok(Finding::new(worst, if halves { HALVES_BOUND } else { BOUND }))
}

pub fn golden_f32(device: &Device) -> Result<Finding> {
    golden(device, false)
}

pub fn golden_f16(device: &Device) -> Result<Finding> {
    golden(device, true)
}

fn queries(device: &Device, halves: bool) -> Result<Finding> {
    if !computes(device, halves) {
        return Ok(Finding::nothing(NO_HALVES));
    }
    let mut worst = 0.0f64;
    for (queries, keys) in QUERIES.into_iter().flat_map(|queries| KEYS.map(|keys| (queries, keys))) {
        let s = Attention { samples: 2, queries, keys, width: 32, heads: 2 };
        let inputs = inputs(&s, halves);
        let made = attend_others(inputs.each_ref().map(|values| tokens(values, &s, halves, device)), s.heads);
        let [q, k, v, gradient] = &inputs;
        let [of_q, of_k, of_v] = gradients(q, k, v, gradient, &s);
        for (ours, exact) in made.into_iter().zip([attention(q, k, v, &s).0, of_q, of_k, of_v]) {
            worst = worst.max(relative_error(&read_values(ours)?, &exact));
        }
    }
    let bound = match (halves, way(device, halves)) {
        (false, _) => BOUND,
        (true, Some(_)) => HALVES_BOUND,
        (true, None) => BURNS_BOUND,
    };
    Ok(Finding::new(worst, bound))
}

pub fn queries_f32(device: &Device) -> Result<Finding> {
    queries(device, false)
}

pub fn queries_f16(device: &Device) -> Result<Finding> {
    queries(device, true)
}

/// What an attention of tokens over themselves makes, and one of queries over others.
pub fn results(device: &Device, halves: bool) -> Result<Vec<f32>> {
    let s = Attention { samples: 3, queries: 7, keys: 37, width: 64, heads: 2 };
    let tensor = |name, width| upload(&held(name, s.samples * s.keys * width, halves), [s.samples, s.keys, width], halves, device);
    let mut all = Vec::new();
    for part in attend_themselves(tensor("qkv", 3 * s.width), tensor("of read", s.width), s.heads) {
        all.extend(read_values(part)?);
    }
    for part in attend_others(inputs(&s, halves).map(|values| tokens(&values, &s, halves, device)), s.heads) {
        all.extend(read_values(part)?);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_twin_agrees_with_the_goldens() {
        let golden = Golden::attention().unwrap();
        for stem in golden.stems(".heads").unwrap() {
            let values = |part: &str| golden.floats(&format!("{stem}.{part}")).unwrap();
            let [samples, queries, width] = golden.shape(&format!("{stem}.g")).unwrap();
            let thirds = |part: &str| {
                let all = values(part);
                [0, 1, 2].map(|i| -> Vec<f32> { all.chunks(width).skip(i).step_by(3).flatten().copied().collect() })
            };
            // Thirds of q, k and v side by side are queries over as many tokens.
            let ([q, k, v], of_parts) = match golden.has(&format!("{stem}.qkv")) {
                true => (thirds("qkv"), thirds("of_qkv")),
                false => (["q", "k", "v"].map(values), ["of_q", "of_k", "of_v"].map(values)),
            };
            let heads = golden.ints(&format!("{stem}.heads")).unwrap()[0] as usize;
            let s = Attention { samples, queries, keys: k.len() / samples / width, width, heads };
            assert!(relative_error(&attention(&q, &k, &v, &s).0, &values("read")) <= 2e-7, "{stem}");
            for (i, (ours, exact)) in gradients(&q, &k, &v, &values("g"), &s).iter().zip(&of_parts).enumerate() {
                assert!(relative_error(ours, exact) <= 2e-7, "{stem}, {i}");
            }
            // A head more or less is another computation.
            let other = Attention { heads: 3 - heads, ..s };
            assert!(relative_error(&attention(&q, &k, &v, &other).0, &values("read")) > 1e-2, "{stem}");
        }
    }

    #[test]
    fn goldens_are_of_both_kinds() {
        let golden = Golden::attention().unwrap();
        let [themselves, others] = [".qkv", ".q"].map(|ending| golden.stems(ending).unwrap().len());
        assert_eq!(themselves + others, golden.stems(".heads").unwrap().len());
    }
}
