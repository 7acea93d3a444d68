//! Removes DWARF and the lines of the source from a compiled eBPF object, and keeps BTF's types and
//! functions, in an order of its own.
//!
//! The kernel and the loader read BTF (`.BTF`, `.BTF.ext`). Nobody reads DWARF, and it is four
//! fifths of the file. Line information is two thirds of what is left: it would be parsed at each
//! start and kept in the kernel's memory, and a comment would change the object.

use std::ops::Range;

use anyhow::{Context, Result, ensure};
use object::build::elf::{Builder, Relocation, SectionData};
use object::elf::{EM_BPF, SHT_STRTAB};

use crate::btf;

/// The same object without `.debug_*` and the relocations of those sections, and with sorted BTF.
pub(crate) fn strip(object: &[u8]) -> Result<Vec<u8>> {
    let mut elf = Builder::read(object).context("this is no ELF file")?;
    anyhow::ensure!(elf.header.e_machine == EM_BPF, "this is no eBPF object");
    let mut has_section_names = false;
    let mut lines = None;
    for section in elf.sections.iter_mut() {
        if let (b".BTF.ext", SectionData::Data(ext)) = (&section.name[..], &mut section.data) {
            let (without, range) = without_lines(ext)?;
            *ext = without.into();
            lines = range;
        }
    }
    for section in elf.sections.iter_mut() {
        if let (b".rel.BTF.ext", SectionData::Relocation(relocations), Some(lines)) =
            (&section.name[..], &mut section.data, &lines)
        {
            follow(relocations, lines);
        }
        section.delete = is_debug(&section.name);
        if let (b".BTF", SectionData::Data(btf)) = (&section.name[..], &mut section.data) {
            *btf = btf::sort(btf)?.into();
        }
        has_section_names |= matches!(section.data, SectionData::SectionString);
    }
    // LLVM keeps the names of sections in `.strtab`; the writer wants a section of their own.
    if !has_section_names {
        let names = elf.sections.add();
        names.name = ".shstrtab".into();
        names.sh_type = SHT_STRTAB;
        names.sh_addralign = 1;
        names.data = SectionData::SectionString;
    }
    let mut stripped = Vec::new();
    elf.write(&mut stripped)
        .context("cannot write the ELF file")?;
    Ok(stripped)
}

/// The section `.BTF.ext` without line information, and where that was. The header is `struct
/// btf_ext_header` of the kernel's `include/uapi/linux/btf.h`.
fn without_lines(section: &[u8]) -> Result<(Vec<u8>, Option<Range<u64>>)> {
    let word = |at: usize| -> Result<usize> {
        let bytes = section.get(at..at + 4).context(".BTF.ext is too short")?;
        Ok(u32::from_le_bytes(bytes.try_into()?) as usize)
    };
    let (header, offset, length) = (word(4)?, word(16)?, word(20)?);
    if length == 0 {
        return Ok((section.to_vec(), None));
    }
    let begin = header + offset;
    let end = begin + length;
    ensure!(end <= section.len(), "the lines of .BTF.ext end outside");
    let mut without = [&section[..begin], &section[end..]].concat();
    without[20..24].fill(0);
    // Relocations of CO-RE, if the header is long enough to have any, lie behind the lines.
    if header >= 32 {
        let moved = word(24)?.saturating_sub(length) as u32;
        without[24..28].copy_from_slice(&moved.to_le_bytes());
    }
    Ok((without, Some(begin as u64..end as u64)))
}

/// Relocations of what is gone go, those behind it move up.
fn follow(relocations: &mut Vec<Relocation>, gone: &Range<u64>) {
    relocations.retain(|relocation| !gone.contains(&relocation.r_offset));
    for relocation in relocations.iter_mut() {
        if relocation.r_offset >= gone.end {
            relocation.r_offset -= gone.end - gone.start;
        }
    }
}

fn is_debug(name: &[u8]) -> bool {
    let name = name.strip_prefix(b".rel").unwrap_or(name);
    name.starts_with(b".debug_")
}

#[cfg(test)]
mod tests {
    use object::build::elf::Builder;
    use object::elf::{ET_REL, SHT_PROGBITS};
    use object::read::elf::ElfFile64;
    use object::{Endianness, Object, ObjectSection};

    use super::*;

    #[test]
    fn debug_sections_go_and_all_others_stay_as_they_were() {
        let object = elf(EM_BPF, &[".debug_info", "xdp", "maps", ".rel.debug_line"]);

        let stripped = strip(&object).unwrap();

        let file = ElfFile64::<Endianness>::parse(&*stripped).unwrap();
        let kept: Vec<_> = file
            .sections()
            .map(|s| s.name().unwrap().to_owned())
            .collect();
        assert_eq!(kept, ["xdp", "maps", ".shstrtab"]);
        assert_eq!(file.section_by_name("xdp").unwrap().data().unwrap(), b"xdp");
    }

    #[test]
    fn lines_of_the_source_go_and_what_lies_behind_them_moves_up() {
        // Header of 32 bytes, 4 of functions, 8 of lines, 4 of relocations.
        let words = [0x1_eb9f, 32, 0, 4, 4, 8, 12, 4, 1, 2, 3, 4];
        let section: Vec<u8> = words
            .iter()
            .flat_map(|word: &u32| word.to_le_bytes())
            .collect();

        let (without, gone) = without_lines(&section).unwrap();

        let left: Vec<u32> = without
            .chunks_exact(4)
            .map(|bytes| u32::from_le_bytes(bytes.try_into().unwrap()))
            .collect();
        assert_eq!(left, [0x1_eb9f, 32, 0, 4, 4, 0, 4, 4, 1, 4]);
        assert_eq!(gone, Some(36..44));
        assert_eq!(without_lines(&without).unwrap(), (without.clone(), None));
        assert!(without_lines(&section[..40]).is_err());
    }

    #[test]
    fn stripping_twice_changes_nothing() {
        let once = strip(&elf(EM_BPF, &[".debug_info", "xdp"])).unwrap();

        assert_eq!(strip(&once).unwrap(), once);
    }

    #[test]
    fn a_program_for_another_machine_is_refused() {
        assert!(strip(&elf(object::elf::EM_X86_64, &[".text"])).is_err());
        assert!(strip(b"no object").is_err());
    }

    /// An object whose sections contain their own names.
    fn elf(machine: u16, sections: &[&'static str]) -> Vec<u8> {
        let mut elf = Builder::new(Endianness::Little, true);
        elf.header.e_type = ET_REL;
        elf.header.e_machine = machine;
        for name in sections {
            let section = elf.sections.add();
            section.name = (*name).into();
            section.sh_type = SHT_PROGBITS;
            section.sh_addralign = 1;
            section.data = SectionData::Data(name.as_bytes().into());
        }
        let names = elf.sections.add();
        names.name = ".shstrtab".into();
        names.sh_type = SHT_STRTAB;
        names.sh_addralign = 1;
        names.data = SectionData::SectionString;
        let mut bytes = Vec::new();
        elf.write(&mut bytes).unwrap();
        bytes
    }
}
