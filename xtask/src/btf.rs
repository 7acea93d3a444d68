//! Sorts the forward declarations of an object's BTF by name.
//!
//! LLVM writes them in the order of addresses in its own memory, which changes with the length of a
//! path or with another malloc. Everything else in the object is the same wherever it is built. The
//! format of BTF is described in the kernel's `Documentation/bpf/btf.rst`.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};

const MAGIC: u32 = 0xeb9f;
const ARRAY: u32 = 3;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
const FORWARD: u32 = 7;
const PROTOTYPE: u32 = 13;

/// Kinds whose third word is a size or unused. In all other kinds it is the number of a type.
const WITHOUT_TYPE: [u32; 8] = [1, ARRAY, STRUCT, UNION, 6, FORWARD, 15, 16];

/// Returns the section `.BTF` with its forward declarations, and their names, sorted.
pub(crate) fn sort(section: &[u8]) -> Result<Vec<u8>> {
    let mut btf = Btf::read(section)?;
    btf.sort_names()?;
    btf.sort_types()?;
    Ok(btf.section)
}

struct Btf {
    section: Vec<u8>,
    /// The range of the strings.
    strings: (usize, usize),
    /// The offset of each type. The first one has the number 1.
    types: Vec<usize>,
}

impl Btf {
    fn read(section: &[u8]) -> Result<Btf> {
        let section = section.to_vec();
        let mut btf = Btf {
            section,
            strings: (0, 0),
            types: Vec::new(),
        };
        ensure!(
            btf.word(0)? & 0xffff == MAGIC,
            "this is not BTF of a little-endian machine"
        );
        let header = btf.word(4)? as usize;
        let begin = header + btf.word(8)? as usize;
        let end = begin + btf.word(12)? as usize;
        let strings = header + btf.word(16)? as usize;
        btf.strings = (strings, strings + btf.word(20)? as usize);
        ensure!(
            btf.strings.1 <= btf.section.len(),
            "the strings of BTF exceed the section"
        );
        let mut at = begin;
        while at < end {
            btf.types.push(at);
            at += 12 + btf.tail(at)?;
        }
        Ok(btf)
    }

    /// The number of bytes that follow the three words of a type.
    fn tail(&self, at: usize) -> Result<usize> {
        let members = self.word(at + 4)? as usize & 0xffff;
        Ok(match self.kind(at)? {
            // INT, VAR and DECL_TAG have one more word.
            1 | 14 | 17 => 4,
            ARRAY => 12,
            // Members; the variables of DATASEC; the values of ENUM64.
            STRUCT | UNION | 15 | 19 => 12 * members,
            // The values of ENUM; parameters.
            6 | PROTOTYPE => 8 * members,
            2 | 7..=12 | 16 | 18 => 0,
            kind => anyhow::bail!("BTF has a type of unknown kind {kind}"),
        })
    }

    /// The names of forward declarations follow one another. A name that something else also uses
    /// may be elsewhere, and stays there.
    fn sort_names(&mut self) -> Result<()> {
        let mut names = BTreeMap::new();
        for at in self.forwards()? {
            let offset = self.word(at)?;
            names.insert(offset, self.name(offset)?);
        }
        let mut moved = BTreeMap::new();
        while let Some((first, _)) = names.first_key_value() {
            let mut end = *first;
            let mut run = Vec::new();
            while let Some(name) = names.remove(&end) {
                let length = name.len() as u32 + 1;
                run.push((name, end));
                end += length;
            }
            let mut offset = run[0].1;
            run.sort();
            for (name, old) in run {
                let at = self.strings.0 + offset as usize;
                self.section[at..at + name.len()].copy_from_slice(&name);
                self.section[at + name.len()] = 0;
                moved.insert(old, offset);
                offset += name.len() as u32 + 1;
            }
        }
        for at in self.name_places()? {
            let offset = self.word(at)?;
            self.set(at, *moved.get(&offset).unwrap_or(&offset));
        }
        Ok(())
    }

    fn sort_types(&mut self) -> Result<()> {
        let places = self.type_places()?;
        let mut forwards = Vec::new();
        for at in self.forwards()? {
            let id = self.types.iter().position(|t| *t == at).unwrap_or_default() as u32 + 1;
            // Two declarations with the same name are ordered by the first type that refers to
            // them.
            let mut referrer = usize::MAX;
            for place in &places {
                if self.word(*place)? == id {
                    referrer = referrer.min(*place);
                }
            }
            let (name, info) = (self.word(at)?, self.word(at + 4)?);
            forwards.push((self.name(name)?, info, referrer, id, name));
        }
        let slots: Vec<u32> = forwards.iter().map(|forward| forward.3).collect();
        forwards.sort();
        let mut moved = BTreeMap::new();
        for (slot, (_, info, _, id, name)) in slots.into_iter().zip(forwards) {
            let at = self.types[slot as usize - 1];
            self.set(at, name);
            self.set(at + 4, info);
            moved.insert(id, slot);
        }
        for at in places {
            let id = self.word(at)?;
            self.set(at, *moved.get(&id).unwrap_or(&id));
        }
        Ok(())
    }

    fn forwards(&self) -> Result<Vec<usize>> {
        let mut found = Vec::new();
        for at in &self.types {
            if self.kind(*at)? == FORWARD {
                found.push(*at);
            }
        }
        Ok(found)
    }

    /// The words that are offsets of names.
    fn name_places(&self) -> Result<Vec<usize>> {
        let mut places = self.types.clone();
        for at in &self.types {
            let size = match self.kind(*at)? {
                STRUCT | UNION | 19 => 12,
                6 | PROTOTYPE => 8,
                _ => continue,
            };
            places.extend((0..self.tail(*at)? / size).map(|member| at + 12 + member * size));
        }
        Ok(places)
    }

    /// The words that are numbers of types.
    fn type_places(&self) -> Result<Vec<usize>> {
        let mut places = Vec::new();
        for at in &self.types {
            let kind = self.kind(*at)?;
            if !WITHOUT_TYPE.contains(&kind) && kind != 19 {
                places.push(at + 8);
            }
            let (size, offset) = match kind {
                // The type of the elements and the type of the index.
                ARRAY => {
                    places.extend([at + 12, at + 16]);
                    continue;
                }
                STRUCT | UNION => (12, 4),
                PROTOTYPE => (8, 4),
                15 => (12, 0),
                _ => continue,
            };
            let members = self.tail(*at)? / size;
            places.extend((0..members).map(|member| at + 12 + member * size + offset));
        }
        Ok(places)
    }

    fn kind(&self, at: usize) -> Result<u32> {
        Ok(self.word(at + 4)? >> 24 & 0x1f)
    }

    fn name(&self, offset: u32) -> Result<Vec<u8>> {
        let strings = &self.section[self.strings.0..self.strings.1];
        let name = strings
            .get(offset as usize..)
            .context("a name outside the strings of BTF")?;
        Ok(name.iter().copied().take_while(|byte| *byte != 0).collect())
    }

    fn word(&self, at: usize) -> Result<u32> {
        let bytes = self.section.get(at..at + 4).context("BTF is cut short")?;
        Ok(u32::from_le_bytes(bytes.try_into()?))
    }

    fn set(&mut self, at: usize, word: u32) {
        self.section[at..at + 4].copy_from_slice(&word.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pointer and a typedef, each to one of two forward declarations.
    fn btf(first: &str, second: &str, pointees: [u32; 2]) -> Vec<u8> {
        let strings = format!("\0x\0{first}\0{second}\0");
        // The same name is stored only once.
        let later = if first == second {
            3
        } else {
            4 + first.len() as u32
        };
        let types: [[u32; 3]; 4] = [
            [0, 2 << 24, pointees[0]],
            [1, 8 << 24, pointees[1]],
            [3, FORWARD << 24, 0],
            [later, FORWARD << 24, 0],
        ];
        let header = [MAGIC | 1 << 16, 24, 0, 48, 48, strings.len() as u32];
        let words = header.into_iter().chain(types.into_iter().flatten());
        let mut section: Vec<u8> = words.flat_map(u32::to_le_bytes).collect();
        section.extend(strings.bytes());
        section
    }

    #[test]
    fn the_order_of_forward_declarations_does_not_matter() {
        let sorted = btf("flow_keys", "sock", [3, 4]);

        assert_eq!(sort(&btf("sock", "flow_keys", [4, 3])).unwrap(), sorted);
        assert_eq!(sort(&sorted).unwrap(), sorted);
    }

    #[test]
    fn two_of_one_name_are_ordered_by_who_refers_to_them() {
        let sorted = btf("sock", "sock", [3, 4]);

        assert_eq!(
            sort(&btf("sock", "sock", [4, 3])).unwrap()[..72],
            sorted[..72]
        );
    }

    #[test]
    fn what_is_no_btf_is_refused() {
        assert!(sort(b"").is_err());
        assert!(sort(&btf("a", "b", [3, 4])[..60]).is_err());
    }
}
