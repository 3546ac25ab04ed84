//! Values that JSON alone cannot carry: numbers that are not finite, and small maps that keep the order they were written in.
//!
//! A diverged loss is exactly what a run has to tell, so it must survive the file: a finite number is a JSON number, the others are the
//! strings `"NaN"`, `"inf"` and `"-inf"`. Nothing here turns a non-finite value into zero or leaves it out.

use serde::de::{Error, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::marker::PhantomData;

/// An `f64` whose JSON form also holds NaN and the infinities.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Number(pub f64);

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            x if x.is_finite() => serializer.serialize_f64(x),
            x if x.is_nan() => serializer.serialize_str("NaN"),
            x if x > 0.0 => serializer.serialize_str("inf"),
            _ => serializer.serialize_str("-inf"),
        }
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NumberVisitor;
        impl Visitor<'_> for NumberVisitor {
            type Value = Number;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, \"NaN\", \"inf\" or \"-inf\"")
            }
            fn visit_f64<E: Error>(self, x: f64) -> Result<Number, E> {
                Ok(Number(x))
            }
            fn visit_i64<E: Error>(self, x: i64) -> Result<Number, E> {
                Ok(Number(x as f64))
            }
            fn visit_u64<E: Error>(self, x: u64) -> Result<Number, E> {
                Ok(Number(x as f64))
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Number, E> {
                match text {
                    "NaN" => Ok(Number(f64::NAN)),
                    "inf" => Ok(Number(f64::INFINITY)),
                    "-inf" => Ok(Number(f64::NEG_INFINITY)),
                    _ => Err(E::invalid_value(serde::de::Unexpected::Str(text), &self)),
                }
            }
        }
        deserializer.deserialize_any(NumberVisitor)
    }
}

/// `#[serde(with = "number")]` for an `f64` field.
pub(super) mod number {
    use super::Number;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(x: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        Number(*x).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        Ok(Number::deserialize(deserializer)?.0)
    }
}

/// `#[serde(with = "optional")]` for an `Option<f64>` field.
pub(super) mod optional {
    use super::Number;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(x: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
        x.map(Number).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
        Ok(Option::<Number>::deserialize(deserializer)?.map(|n| n.0))
    }
}

/// `#[serde(with = "numbers")]` for a `Vec<f64>` field.
pub(super) mod numbers {
    use super::Number;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(list: &[f64], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(list.iter().map(|&x| Number(x)))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f64>, D::Error> {
        Ok(Vec::<Number>::deserialize(deserializer)?.into_iter().map(|n| n.0).collect())
    }
}

/// Entries that a map read from a file may have: lookups are linear, so many would take for ever.
const ENTRIES: usize = 1024;

/// A small map in insertion order; lookups are linear. Setting a key again keeps its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Ordered<V>(Vec<(String, V)>);

impl<V> Default for Ordered<V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<V> Ordered<V> {
    pub fn get(&self, key: &str) -> Option<&V> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, v)| v)
    }

    pub fn set(&mut self, key: impl Into<String>, value: V) {
        let key = key.into();
        match self.0.iter_mut().find(|(k, _)| *k == key) {
            Some(entry) => entry.1 = value,
            None => self.0.push((key, value)),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &V)> {
        self.0.iter().map(|(k, v)| (k.as_str(), v))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<K: Into<String>, V> FromIterator<(K, V)> for Ordered<V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut map = Self::default();
        for (key, value) in entries {
            map.set(key, value);
        }
        map
    }
}

impl<V: Serialize> Serialize for Ordered<V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (key, value) in &self.0 {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Ordered<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OrderedVisitor<V>(PhantomData<V>);
        impl<'de, V: Deserialize<'de>> Visitor<'de> for OrderedVisitor<V> {
            type Value = Ordered<V>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Ordered<V>, A::Error> {
                let mut map = Ordered::default();
                while let Some((key, value)) = access.next_entry::<String, V>()? {
                    map.set(key, value);
                    if map.0.len() > ENTRIES {
                        return Err(A::Error::custom(format_args!("a map of more than {ENTRIES} entries")));
                    }
                }
                Ok(map)
            }
        }
        deserializer.deserialize_map(OrderedVisitor(PhantomData))
    }
}

/// Named numbers of one logging interval, in the order the engine gave them: `loss`, `lr`, `grad_norm`, `faces_per_second` ...
///
/// ```
/// use moue::run::Scalars;
/// let scalars = Scalars::from([("loss", 0.43), ("lr", 9.1e-4)]);
/// assert_eq!(scalars.get("loss"), Some(0.43));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Scalars(Ordered<Number>);

impl Scalars {
    pub fn get(&self, name: &str) -> Option<f64> {
        self.0.get(name).map(|n| n.0)
    }

    pub fn set(&mut self, name: impl Into<String>, value: f64) {
        self.0.set(name, Number(value));
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, f64)> {
        self.0.iter().map(|(name, n)| (name, n.0))
    }
}

impl<K: Into<String>> FromIterator<(K, f64)> for Scalars {
    fn from_iter<I: IntoIterator<Item = (K, f64)>>(entries: I) -> Self {
        Self(entries.into_iter().map(|(name, x)| (name, Number(x))).collect())
    }
}

impl<K: Into<String>, const N: usize> From<[(K, f64); N]> for Scalars {
    fn from(entries: [(K, f64); N]) -> Self {
        entries.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_json_lacks_survive() {
        let text = serde_json::to_string(&[1.5, f64::NAN, f64::INFINITY, f64::NEG_INFINITY].map(Number)).unwrap();
        assert_eq!(text, r#"[1.5,"NaN","inf","-inf"]"#);
        let back: Vec<Number> = serde_json::from_str(&text).unwrap();
        assert!(back[0].0 == 1.5 && back[1].0.is_nan() && back[2].0 == f64::INFINITY && back[3].0 == f64::NEG_INFINITY);
        assert!(serde_json::from_str::<Number>("\"much\"").is_err());
        // Another writer may leave the point out.
        assert_eq!(serde_json::from_str::<Number>("-3").unwrap().0, -3.0);
    }

    #[test]
    fn maps_keep_their_order() {
        let scalars = Scalars::from([("loss", 1.0), ("area", f64::NAN), ("lr", 0.5)]);
        let text = serde_json::to_string(&scalars).unwrap();
        assert_eq!(text, r#"{"loss":1.0,"area":"NaN","lr":0.5}"#);
        let back: Scalars = serde_json::from_str(&text).unwrap();
        assert_eq!(back.iter().map(|(k, _)| k).collect::<Vec<_>>(), ["loss", "area", "lr"]);
    }
}
