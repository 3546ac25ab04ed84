use super::*;
use crate::kernels::reference::product::product;

#[test]
fn twins_agree_with_the_goldens() {
    let golden = Golden::product().unwrap();
    let values = |stem: &str, part: &str| golden.floats(&format!("{stem}.{part}")).unwrap();
    for stem in golden.stems(".x").unwrap() {
        let ([m, k], [_, n]) = (golden.shape(&format!("{stem}.x")).unwrap(), golden.shape(&format!("{stem}.w")).unwrap());
        let operands = ["x", "w", "g"].map(|part| values(&stem, part));
        for (part, (a, b, _, sizes)) in ["y", "of_x", "of_w"].into_iter().zip(products([m, k, n])) {
            let ours = product(&operands[a], &operands[b], &sizes);
            assert!(relative_error(&ours, &values(&stem, part)) <= 2e-7, "{stem}.{part}");
        }
    }
    let golden = Golden::column_sums().unwrap();
    for stem in golden.stems(".sums").unwrap() {
        let [_, width] = golden.shape(&format!("{stem}.x")).unwrap();
        let ours = column_sums(&golden.floats(&format!("{stem}.x")).unwrap(), width);
        assert!(relative_error(&ours, &golden.floats(&format!("{stem}.sums")).unwrap()) <= 2e-7, "{stem}");
    }
}

#[test]
fn either_neighbour_is_near_and_another_computation_is_not() {
    let nearest = |exact: &[f64]| -> Vec<f32> { exact.iter().map(|v| f16::from_f64(*v).to_f32()).collect() };
    let cut = |v: &f64| {
        let near = f16::from_f64(*v);
        let beyond = near.to_f64().abs() > v.abs();
        f16::from_bits(near.to_bits() - u16::from(beyond)).to_f32()
    };
    let (width, layer) = (16, Affine::new([19, 48, 16]));
    let ours = nearest(&layer.exact);
    let error = |ours: &[f32]| rounded_error(ours, &layer.exact);
    assert!(error(&ours) <= ROUNDED_BOUND && error(&layer.exact.iter().map(cut).collect::<Vec<_>>()) <= ROUNDED_BOUND);
    let shifted = |by: usize| -> Vec<f32> { ours.iter().cycle().skip(by).take(ours.len()).copied().collect() };
    assert!(error(&shifted(1)) > 0.1 && error(&shifted(width)) > 0.1, "another column, another row");
    let with = |value: f32| -> Vec<f32> { [&ours[..7], &[value], &ours[8..]].concat() };
    assert!(error(&with(1.01 * ours[7])) > ROUNDED_BOUND);
    for value in [f32::NAN, f32::INFINITY] {
        assert_eq!(error(&with(value)), f64::INFINITY);
    }
    assert_eq!(error(&ours[1..]), f64::INFINITY);
    // GELU by a hyperbolic tangent, which others use, is not ours.
    let x: Vec<f64> = (-600..=600).map(|i| f64::from(i) / 100.0).collect();
    let exact: Vec<f64> = x.iter().map(|x| activation(*x, false)).collect();
    let by_tanh: Vec<f64> = x.iter().map(|&x| 0.5 * x * (1.0 + f64::tanh(0.797_884_560_8 * (x + 0.044_715 * x.powi(3))))).collect();
    assert!(rounded_error(&nearest(&exact), &exact) <= ROUNDED_BOUND);
    assert!(rounded_error(&nearest(&by_tanh), &exact) > ROUNDED_BOUND);
}

#[test]
fn activations_are_seen_from_one_end_to_the_other() {
    let layer = Affine::new([300, 80, 144]);
    for range in [-9.0..-6.0, -6.0..-1.0, -1.0..1.0, 1.0..6.0, 6.0..9.0] {
        assert!(layer.exact.iter().any(|v| range.contains(v)), "nothing in {range:?}");
    }
}

#[test]
fn what_is_beyond_the_range_is_infinite() {
    let exact = [131_072.0, -131_072.0, 65_504.0, 640.0];
    assert_eq!(others(&[f32::INFINITY, f32::NEG_INFINITY, 65_504.0, 640.0], &exact), 0);
    assert_eq!(others(&[65_504.0, f32::INFINITY, f32::INFINITY, f32::NAN], &exact), 4);
    assert_eq!(others(&[f32::INFINITY], &exact), 3);
    // What such sums are made of is exact.
    for share in RANGE.iter().flat_map(|sum| [sum / 16.0, sum / 1024.0]) {
        assert_eq!(f16::from_f64(share).to_f64(), share);
    }
}
