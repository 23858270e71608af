//! Port names, in both grammars.

use ringway_abi::{LegacySpec, ParseOptions, PortSpec, is_vale_name, split_pipe, split_vale};

/// Both grammars, and what the service reads out of a name.
///
/// # Panics
/// If something is wrong with them.
pub fn portspec(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Some((parent, role, id)) = split_pipe(text) {
        assert_eq!(format!("{parent}{}{id}", role.bracket()), text);
    }
    if let Ok((switch, port)) = split_vale(text) {
        assert!(is_vale_name(text) && text.starts_with(switch) && text.ends_with(port));
    }
    let mut all = ParseOptions::new();
    all.enable("offset");
    for allowed in [ParseOptions::new(), all] {
        let Ok(spec) = PortSpec::parse_with(text, &allowed) else { continue };
        assert!((1..=63).contains(&spec.name.len()), "{spec:?}");
        assert!(spec.nr_ringid < 4095, "{spec:?}");
        let shown = spec.to_string();
        let again = PortSpec::parse_with(&shown, &allowed);
        assert_eq!(again.as_ref(), Ok(&spec), "{text:?} is shown as {shown:?}");
        let _ = (
            spec.extmem.as_ref().map(|e| e.pools_info(1 << 20)),
            spec.offset.as_ref().map(|o| o.to_option()),
        );
        let req = spec.register();
        assert_eq!(
            (req.nr_mode, req.nr_ringid, req.nr_mem_id),
            (spec.nr_mode, spec.nr_ringid, spec.nr_mem_id)
        );
    }
    if let Ok(spec) = LegacySpec::parse(text) {
        assert!(spec.nr_name.len() <= 15 && spec.nr_ringid < 4095, "{spec:?}");
    }
}
