//! Landmarks of pictures from a table of one's own: `file,x1,y1,x2,y2,...`, 5 points (eyes, nose, mouth corners; left in the picture first) or
//! 68 (iBUG's order) in pixels, one line a picture. A first line without numbers is a head.

use crate::limits::Records;
use crate::usage;
use anyhow::{Context, Result, anyhow};
use std::collections::HashMap;
use std::path::Path;

/// Points by the file's name as the table spells it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Landmarks(HashMap<String, Vec<[f32; 2]>>);

impl Landmarks {
    /// # Errors
    /// [`Usage`](crate::failure::Usage) for a file that is not there, a name that occurs twice, or a line that is not 5 or 68 points.
    pub fn read(path: &Path) -> Result<Self> {
        if !path.is_file() {
            usage!("there is no table of landmarks {}", path.display());
        }
        let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).trim(csv::Trim::All).from_reader(Records::open(path)?);
        let mut found = HashMap::new();
        for (n, record) in reader.records().enumerate() {
            let record = record.with_context(|| format!("reading {}", path.display()))?;
            let numbers: Option<Vec<f32>> = record.iter().skip(1).map(|field| field.parse().ok().filter(|v: &f32| v.is_finite())).collect();
            let points: Vec<[f32; 2]> = match numbers {
                Some(numbers) if numbers.len() == 10 || numbers.len() == 136 => numbers.as_chunks().0.to_vec(),
                None if n == 0 => continue,
                _ => usage!("{} line {}: expected a file name and 5 or 68 points x, y", path.display(), n + 1),
            };
            let name = record.get(0).ok_or_else(|| anyhow!("an empty record"))?.to_string();
            if found.insert(name.clone(), points).is_some() {
                usage!("{} line {}: {name} has landmarks already", path.display(), n + 1);
            }
        }
        Ok(Self(found))
    }

    /// Those of a picture: under its path as it was given, else under its file name.
    pub fn of(&self, picture: &Path) -> Option<&[[f32; 2]]> {
        let name = picture.file_name().map(|n| n.to_string_lossy());
        let found = self.0.get(&*picture.to_string_lossy()).or_else(|| self.0.get(&*name?));
        found.map(Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_found_by_path_or_name_and_bad_lines_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("l.csv");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            Landmarks::read(&path).map_err(|e| e.to_string())
        };
        let five = "1,2,3,4,5,6,7,8,9,10";
        let table = read(&format!("file,x1,y1\na.png,{five}\nsub/b.png, {five}\n")).unwrap();
        assert_eq!(table.of(Path::new("faces/a.png")).unwrap()[1], [3.0, 4.0]);
        assert!(table.of(Path::new("sub/b.png")).is_some() && table.of(Path::new("b.png")).is_none());
        assert!(read(&format!("a.png,{five}\nb.png,1,2\n")).unwrap_err().contains("line 2"));
        assert!(read(&format!("a.png,{five}\na.png,{five}\n")).unwrap_err().contains("already"));
        assert!(read(&format!("a.png,{five}\nb.png,{}\n", five.replace('3', "nan"))).unwrap_err().contains("line 2"));
        assert!(Landmarks::read(&folder.path().join("none.csv")).is_err());
    }
}
