//! Removes DWARF from a compiled eBPF object and keeps BTF, in an order of its own.
//!
//! The kernel and the loader read BTF (`.BTF`, `.BTF.ext`); nobody reads DWARF, and it is four
//! fifths of the file.

use anyhow::{Context, Result};
use object::build::elf::{Builder, SectionData};
use object::elf::{EM_BPF, SHT_STRTAB};

use crate::btf;

/// The same object without `.debug_*` and the relocations of those sections, and with sorted BTF.
pub fn strip(object: &[u8]) -> Result<Vec<u8>> {
    let mut elf = Builder::read(object).context("this is no ELF file")?;
    anyhow::ensure!(elf.header.e_machine == EM_BPF, "this is no eBPF object");
    let mut has_section_names = false;
    for section in elf.sections.iter_mut() {
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
        let object = elf(
            EM_BPF,
            &[".debug_info", "xdp", ".BTF.ext", ".rel.debug_line"],
        );

        let stripped = strip(&object).unwrap();

        let file = ElfFile64::<Endianness>::parse(&*stripped).unwrap();
        let kept: Vec<_> = file
            .sections()
            .map(|s| s.name().unwrap().to_owned())
            .collect();
        assert_eq!(kept, ["xdp", ".BTF.ext", ".shstrtab"]);
        assert_eq!(file.section_by_name("xdp").unwrap().data().unwrap(), b"xdp");
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
