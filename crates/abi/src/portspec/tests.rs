//! The tables of userapi.md 3 and 6, row by row, and properties of arbitrary names.

use super::*;
use crate::request::*;
use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;
use proptest::prelude::*;

/// A name of libnetmap's grammar and what it comes to: the port, or errno and text.
type LibraryRow = (&'static str, Result<PortSpec, (i32, &'static str)>);

fn library_rows() -> Vec<LibraryRow> {
    fn port(name: &str, nr_mode: u32, nr_ringid: u16, nr_flags: u64, nr_mem_id: u16) -> PortSpec {
        PortSpec { name: name.into(), nr_mode, nr_ringid, nr_flags, nr_mem_id, ..PortSpec::default() }
    }
    let ok = |name: &str, mode, ring, flags, mem| Ok(port(name, mode, ring, flags, mem));
    let conf = |name: &str, mode, flags, mem, tx_rings, rx_rings, host: u16, slots: u32| {
        let conf = Conf {
            tx_rings,
            rx_rings,
            host_tx_rings: host,
            host_rx_rings: host,
            tx_slots: slots,
            rx_slots: slots,
        };
        Ok(PortSpec { conf, ..port(name, mode, 0, flags, mem) })
    };
    let bad = |text| Err((22, text));
    vec![
        ("netmap:eth0", ok("eth0", 1, 0, 0, 0)),
        ("netmap:eth0^", ok("eth0", 2, 0, 0, 0)),
        ("netmap:eth0^2", ok("eth0", 8, 2, 0, 0)),
        ("netmap:eth0*", ok("eth0", 3, 0, 0, 0)),
        ("netmap:eth0*2", bad("unexpected character: '2'")),
        ("netmap:eth0-3", ok("eth0", 4, 3, 0, 0)),
        ("netmap:eth0-4094", ok("eth0", 4, 4094, 0, 0)),
        ("netmap:eth0-4095", bad("'4095' out of range [0, 4095)")),
        ("netmap:eth0-", bad("unexpected end of request")),
        ("netmap:eth0/", bad("unexpected end of request")),
        ("netmap:eth0@5/", bad("unexpected end of request")),
        ("netmap:eth0- 1", bad("got ' 1' while expecting a number")),
        ("netmap:eth0-01x", bad("unexpected character: 'x'")),
        ("netmap:eth0-1^", bad("unexpected character: '^'")),
        ("netmap:eth0^-1", bad("unexpected character: '-'")),
        ("netmap:eth0*-1", bad("unexpected character: '-'")),
        ("netmap:eth0-@conf:rings=1", bad("got '@conf:rings=1' while expecting a number")),
        ("netmap:eth0-99999999999999999999", Err((34, "'9223372036854775807' out of range [0, 4095)"))),
        ("netmap:eth0*/z", ok("eth0", 3, 0, 0x400, 0)),
        ("netmap:eth0^2@5/x@5", ok("eth0", 8, 2, 0x800, 5)),
        ("netmap:eth0/@5", ok("eth0", 1, 0, 0, 5)),
        ("netmap:eth0-1/T", ok("eth0", 4, 1, 0x4000, 0)),
        ("netmap:eth0/xT", ok("eth0", 1, 0, 0x4800, 0)),
        ("netmap:eth0/rz@5", ok("eth0", 1, 0, 0x600, 5)),
        ("netmap:eth0@5/x", ok("eth0", 1, 0, 0x800, 5)),
        ("netmap:eth0^1/R", ok("eth0", 8, 1, 0x2000, 0)),
        ("netmap:eth0^/x@3", ok("eth0", 2, 0, 0x800, 3)),
        ("netmap:eth0/q", bad("unrecognized flag: 'q'")),
        ("netmap:eth0/x/z", bad("unrecognized flag: '/'")),
        ("netmap:eth0@5x", bad("unexpected character: 'x'")),
        ("netmap:eth0@0", bad("invalid mem_id: '0'")),
        ("netmap:eth0@5@6", bad("invalid setting of mem_id to 6 (already set to 5)")),
        ("netmap:eth0@5@5", ok("eth0", 1, 0, 0, 5)),
        ("netmap:eth0@", bad("invalid empty mem_id")),
        ("netmap:eth0@5@", bad("invalid empty mem_id")),
        ("netmap:foo{1", ok("foo{1", 1, 0, 0, 0)),
        ("netmap:foo}abc_1", ok("foo}abc_1", 1, 0, 0, 0)),
        ("netmap:foo{1-0", ok("foo{1", 4, 0, 0, 0)),
        ("netmap:foo{", bad("netmap:foo{: invalid empty pipe name")),
        ("netmap:foo{-1", ok("foo{", 4, 1, 0, 0)),
        ("netmap:foo{^", ok("foo{", 2, 0, 0, 0)),
        ("netmap:foo{/x", ok("foo{", 1, 0, 0x800, 0)),
        ("netmap:foo{@conf:rings=1", conf("foo{", 1, 0, 0, 1, 1, 0, 0)),
        ("netmap:foo{a.b", bad("netmap:foo{a.b: invalid pipe name 'a.b'")),
        ("netmap:a{1}2", bad("netmap:a{1}2: invalid pipe name '1}2'")),
        ("netmap:{1", ok("{1", 1, 0, 0, 0)),
        ("netmap:foo.100", ok("foo.100", 1, 0, 0, 0)),
        ("netmap:foo:1", ok("foo:1", 1, 0, 0, 0)),
        ("netmap:eth0+", ok("eth0+", 1, 0, 0, 0)),
        ("netmap:", bad("netmap:: invalid empty port name")),
        ("netmap:^", bad("netmap:^: invalid empty port name")),
        ("vale0:1", ok("vale0:1", 1, 0, 0, 0)),
        ("vale:1", ok("vale:1", 1, 0, 0, 0)),
        ("vale0:", ok("vale0:", 1, 0, 0, 0)),
        ("valeA_b:c.d", ok("valeA_b:c.d", 1, 0, 0, 0)),
        ("vale0:1{2/x", ok("vale0:1{2", 1, 0, 0x800, 0)),
        ("vale0:^", ok("vale0:", 2, 0, 0, 0)),
        ("vale0", bad("vale0: missing ':'")),
        ("vale", bad("vale: missing ':'")),
        ("netmapeth0", bad("netmapeth0: missing ':'")),
        ("vale-a:1", bad("vale-a:1: invalid identifier '-a'")),
        ("eth0", bad("eth0: invalid request, prefix unknown or missing")),
        ("val", bad("val: invalid request, prefix unknown or missing")),
        ("", bad(": invalid request, prefix unknown or missing")),
        ("netmapX:eth0", bad("netmapX:eth0: no identifier allowed between 'netmap' and ':'")),
        (
            "netmap:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
            bad("name '0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef' too long"),
        ),
        (
            "netmap:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde",
            ok("0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde", 1, 0, 0, 0),
        ),
        ("netmap:eth0@conf:rings=2,slots=512", conf("eth0", 1, 0, 0, 2, 2, 0, 512)),
        ("vale0:1@conf:tx-rings=2,rx_rings=3,host-rings=4", conf("vale0:1", 1, 0, 0, 2, 3, 4, 0)),
        ("vale0:1@conf=7", bad("syntax error: '=' not valid after 'conf'")),
        ("vale0:1@conf", bad("syntax error: missing body after 'conf'")),
        ("vale0:1@conf:", ok("vale0:1", 1, 0, 0, 0)),
        ("vale0:1@conf:rings", bad("option 'conf': missing '=value' for key 'rings'")),
        ("vale0:1@conf:rings=", ok("vale0:1", 1, 0, 0, 0)),
        ("vale0:1@conf:tx-rings", bad("option 'conf': missing '=value' for key 'tx_rings'")),
        ("vale0:1@conf:bogus=1", bad("unknown key: 'bogus'")),
        ("vale0:1@conf:no-such=1", bad("unknown key: 'no_such'")),
        ("vale0:1@conf:=1", bad("unknown key: '=1'")),
        ("vale0:1@conf:,rings", bad("unknown key: ',rings'")),
        ("vale0:1@conf:rings=1,", bad("unknown key: ''")),
        ("vale0:1@conf:rings=,rings=3", conf("vale0:1", 1, 0, 0, 3, 3, 0, 0)),
        ("vale0:1@conf:rings=2@conf:rings=3", conf("vale0:1", 1, 0, 0, 3, 3, 0, 0)),
        ("vale0:1@conf:rings=1@", bad("invalid empty option")),
        ("vale0:1@share=", bad("missing value for option 'share'")),
        ("vale0:1@share:", bad("option 'share': mandatory key 'port' not assigned")),
        ("vale0:1@share:port=", bad("option 'share': mandatory key 'port' not assigned")),
        ("vale0:1@extmem:if-num=3", bad("option 'extmem': mandatory key 'file' not assigned")),
        ("vale0:1@conf:rings=1,rings=2", bad("option 'conf': duplicate key 'rings', already set to '1'")),
        ("vale0:1@bogus=1", bad("unknown option: 'bogus'")),
        ("vale0:1@@conf:rings=1", bad("invalid empty option")),
        ("vale0:1@2@conf:rings=1", conf("vale0:1", 1, 0, 2, 1, 1, 0, 0)),
        ("vale0:1/x@conf:rings=1@conf:slots=3", conf("vale0:1", 1, 0x800, 0, 1, 1, 0, 3)),
        ("vale0:1@conf:rings=2@3", bad("unknown option: '3'")),
        ("vale0:1@offset=64", Err((95, "option 'offset' is not supported"))),
        // Which file and which port it is, and whether they can be had, is the caller's affair.
        (
            "vale0:1@extmem=/nonexistent",
            Ok(PortSpec {
                extmem: Some(Extmem { file: "/nonexistent".into(), ..Extmem::default() }),
                ..port("vale0:1", 1, 0, 0, 0)
            }),
        ),
        (
            "vale0:1@share=vale0:2",
            Ok(PortSpec { share: Some("vale0:2".into()), ..port("vale0:1", 1, 0, 0, 0) }),
        ),
    ]
}

#[test]
fn library_table() {
    for (spec, expected) in library_rows() {
        let parsed = PortSpec::parse(spec).map_err(|error| (error.errno.0, error.message));
        let expected = expected.map_err(|(errno, text)| (errno, text.to_string()));
        assert_eq!(parsed, expected, "{spec}");
        check_any(spec).unwrap();
    }
}

#[test]
fn library_offset_rows_once_enabled() {
    let mut allowed = ParseOptions::new();
    assert!(allowed.enable("offset"));
    let rows = [
        ("vale0:1@offset=64", 64, 0),
        ("vale0:1@offset:initial=64,bits=16", 64, 16),
        ("vale0:1@offset=64,bits=3", 64, 0),
    ];
    for (spec, initial, bits) in rows {
        let parsed = PortSpec::parse_with(spec, &allowed).unwrap();
        assert_eq!(parsed.offset, Some(Offset { initial, bits }), "{spec}");
    }
    let option = Offset { initial: 64, bits: 16 }.to_option();
    assert_eq!((option.nro_max_offset, option.nro_initial_offset, option.nro_offset_bits), (64, 64, 16));
    assert_eq!(option.nro_opt.nro_reqtype, crate::NETMAP_REQ_OPT_OFFSETS);

    assert!(allowed.disable("conf"));
    let error = PortSpec::parse_with("vale0:1@conf:rings=1", &allowed).unwrap_err();
    assert_eq!((error.errno, error.message.as_str()), (Errno(95), "option 'conf' is not supported"));
    assert!(!allowed.enable("bogus") && !allowed.disable("bogus"));

    // What is not in netmap can be left out.
    let mut netmap = ParseOptions::libnetmap();
    assert!(!netmap.enable("mode") && netmap.enable("offset"));
    let error = PortSpec::parse_with("netmap:eth0@mode=copy", &netmap).unwrap_err();
    assert_eq!((error.errno, error.message.as_str()), (Errno::EINVAL, "unknown option: 'mode'"));
    assert!(PortSpec::parse_with("netmap:eth0@offset=4", &netmap).is_ok());
}

#[test]
fn specific_keys_win_in_any_order() {
    for spec in ["vale0:1@conf:tx-slots=8,slots=4", "vale0:1@conf:slots=4,tx_slots=8"] {
        let conf = PortSpec::parse(spec).unwrap().conf;
        assert_eq!((conf.tx_slots, conf.rx_slots), (8, 4), "{spec}");
    }
    // Across options the later one wins, whatever its keys.
    let conf = PortSpec::parse("vale0:1@conf:tx-rings=2,slots=9@conf:rings=3").unwrap().conf;
    assert_eq!((conf.tx_rings, conf.rx_rings, conf.tx_slots), (3, 3, 9));
    // atoi: garbage is 0, ring counts are kept modulo 65536.
    let conf = PortSpec::parse("vale0:1@conf:tx-rings=x,rx-rings=65537,slots= 7z").unwrap().conf;
    assert_eq!((conf.tx_rings, conf.rx_rings, conf.tx_slots), (0, 1, 7));
}

#[test]
fn values_reach_the_request() {
    let spec =
        "netmap:eth0-3/x@7@conf:tx-rings=1,rx-rings=2,host-tx-rings=3,host-rx-rings=4,tx-slots=5,rx-slots=6";
    let expected = nmreq_register {
        nr_tx_slots: 5,
        nr_rx_slots: 6,
        nr_tx_rings: 1,
        nr_rx_rings: 2,
        nr_host_tx_rings: 3,
        nr_host_rx_rings: 4,
        nr_mem_id: 7,
        nr_ringid: 3,
        nr_mode: NR_REG_ONE_NIC,
        nr_flags: NR_EXCLUSIVE,
        ..nmreq_register::default()
    };
    assert_eq!(PortSpec::parse(spec).unwrap().register(), expected);

    let spec = "netmap:e@extmem:file=/f=g,if-num=1,if-size=2,ring-num=3,ring_size=4,buf_num=5,buf-size=6@share=a,b:c";
    let parsed = PortSpec::parse(spec).unwrap();
    let info = parsed.extmem.as_ref().unwrap().pools_info(4096);
    let expected = nmreq_pools_info {
        nr_memsize: 4096,
        nr_if_pool_objtotal: 1,
        nr_if_pool_objsize: 2,
        nr_ring_pool_objtotal: 3,
        nr_ring_pool_objsize: 4,
        nr_buf_pool_objtotal: 5,
        nr_buf_pool_objsize: 6,
        ..nmreq_pools_info::default()
    };
    assert_eq!(info, expected);
    assert_eq!(parsed.extmem.unwrap().file, "/f=g");
    assert_eq!(parsed.share.as_deref(), Some("a,b:c"));
}

#[test]
fn nic_modes() {
    for mode in NicMode::ALL {
        let parsed = PortSpec::parse(&format!("netmap:eth0@mode={mode}")).unwrap();
        assert_eq!(parsed.nic_mode, Some(mode));
    }
    let rows = [
        ("netmap:eth0@mode=x", "unknown mode: 'x'"),
        ("netmap:eth0@mode=", "missing value for option 'mode'"),
        ("netmap:eth0@mode", "syntax error: missing body after 'mode'"),
        ("netmap:eth0@mode=copy@mode=packet", "option 'mode' given twice"),
        ("netmap:eth0@extmem=/a@extmem=/a", "eth0: extmem already in use"),
        ("netmap:a\0b", "port name contains a NUL character"),
    ];
    for (spec, text) in rows {
        let error = PortSpec::parse(spec).unwrap_err();
        assert_eq!((error.errno, error.message.as_str()), (Errno::EINVAL, text), "{spec}");
    }
}

#[test]
fn parts_can_be_read_alone() {
    assert_eq!(decode_header("netmap:a{b^2/x"), Ok(("a{b", "^2/x")));
    let error = decode_register("{x", 0).unwrap_err();
    assert_eq!(error.message, "unknown modifier: '{'");
    // A region named before, kept, repeated, contradicted.
    assert_eq!(decode_register("", 5).unwrap().0.nr_mem_id, 5);
    assert_eq!(decode_register("@5", 5).unwrap().0.nr_mem_id, 5);
    let error = decode_register("@6", 5).unwrap_err();
    assert_eq!(error.message, "invalid setting of mem_id to 6 (already set to 5)");
    assert_eq!(decode_register("-1@2@a@b", 0).unwrap().1, "@a@b");
}

#[test]
fn custom_options() {
    let keys = [
        KeyDef { name: "a_b", id: 3, allow_empty: true, must_set: false },
        KeyDef { name: "c", id: 1, allow_empty: false, must_set: true },
    ];
    let def = OptionDef { name: "o", default_key: None, disabled: false, allow_empty: true, keys: &keys };
    let defs = [def];
    let read = |text: &'static str| {
        let mut seen = Vec::new();
        let result = decode_options(text, &defs, &mut |index, values| {
            seen.push((
                index,
                values.get(1).map(ToString::to_string),
                values.get(3).map(ToString::to_string),
            ));
            Ok(())
        });
        (seen, result.map_err(|error| error.message))
    };
    let text = |text: &str| Some(text.to_string());
    assert_eq!(read(""), (vec![], Ok(())));
    assert_eq!(read("x"), (vec![], Err("option list does not start with '@'".into())));
    assert_eq!(read("@o@o:a-b,c=1"), (vec![(0, None, None), (0, text("1"), text("a_b"))], Ok(())));
    assert_eq!(
        read("@o@o:"),
        (vec![(0, None, None)], Err("option 'o': mandatory key 'c' not assigned".into()))
    );
}

#[test]
fn legacy_table() {
    type Row = (&'static str, Result<(&'static str, u16, u32, u16), &'static str>);
    let rows: &[Row] = &[
        ("netmap:eth0", Ok(("eth0", 0, 1, 0))),
        ("netmap:eth0^", Ok(("eth0", 0, 2, 0))),
        ("netmap:eth0*", Ok(("eth0", 0, 3, 0))),
        ("netmap:eth0-3", Ok(("eth0", 3, 4, 0))),
        ("netmap:eth0-4094", Ok(("eth0", 0xffe, 4, 0))),
        ("netmap:eth0-4095", Err("'4095' out of range [0, 4095)")),
        ("netmap:eth0-", Err("unexpected end of port name")),
        ("netmap:foo{7", Ok(("foo", 7, 5, 0))),
        ("netmap:foo}0", Ok(("foo", 0, 6, 0))),
        ("netmap:foo{a", Err("unexpected character: 'a'")),
        ("netmap:eth0/xzrtRT", Ok(("eth0", 0, 0x6f01, 0))),
        ("netmap:eth0/", Err("unexpected end of port name")),
        ("netmap:eth0/q", Err("unrecognized flag: 'q'")),
        ("netmap:eth0/x/z", Err("unrecognized flag: '/'")),
        ("netmap:eth0-/x", Ok(("eth0", 0, 0x804, 0))),
        ("netmap:foo{/x", Ok(("foo", 0, 0x805, 0))),
        ("netmap:eth0-@3", Ok(("eth0", 0, 4, 3))),
        ("netmap:eth0- 3", Ok(("eth0", 3, 4, 0))),
        ("netmap:eth0-+3", Ok(("eth0", 3, 4, 0))),
        ("netmap:eth0--5", Err("'-5' out of range [0, 4095)")),
        ("netmap:eth0-1-2", Err("unexpected character: '-'")),
        ("netmap:foo{", Err("unexpected end of port name")),
        ("netmap:eth0@", Err("unexpected end of port name")),
        ("netmap:eth0@3/", Err("unexpected end of port name")),
        ("netmap:{1", Ok(("", 1, 5, 0))),
        ("netmap:eth0/@3", Ok(("eth0", 0, 1, 3))),
        ("netmap:eth0/x@3/z", Ok(("eth0", 0, 0xc01, 3))),
        ("netmap:eth0@a", Err("invalid memid 0, must be >0")),
        ("netmap:eth0@-3", Err("invalid memid -3, must be >0")),
        ("netmap:eth0@3/x", Ok(("eth0", 0, 0x801, 3))),
        ("netmap:eth0*/x@2", Ok(("eth0", 0, 0x803, 2))),
        ("netmap:eth0@0", Err("invalid memid 0, must be >0")),
        ("netmap:eth0@2@3", Err("double setting of memid")),
        ("netmap:eth0^1", Err("unexpected character: '1'")),
        ("vale0:1", Ok(("vale0:1", 0, 1, 0))),
        ("vale:1", Ok(("vale:1", 0, 1, 0))),
        ("vale0:1{3/x", Ok(("vale0:1", 3, 0x805, 0))),
        ("vale0:", Ok(("vale0:", 0, 1, 0))),
        ("vale:", Ok(("vale:", 0, 1, 0))),
        ("vale0:1^", Ok(("vale0:1", 0, 2, 0))),
        ("vale0:1-2", Ok(("vale0:1", 2, 4, 0))),
        ("vale", Err("missing ':' in vale name")),
        ("vale-a:1", Err("invalid bridge name")),
        ("vale0:a.b", Err("invalid bridge port name")),
        ("netmap:0123456789abcdef", Err("name too long")),
        ("netmap:0123456789abcde", Ok(("0123456789abcde", 0, 1, 0))),
        ("netmap:", Ok(("", 0, 1, 0))),
        ("netmap:eth0+1", Ok(("eth0+1", 0, 1, 0))),
        // Not in the table: kept modulo 65536.
        ("netmap:eth0@65539", Ok(("eth0", 0, 1, 3))),
    ];
    for (spec, expected) in rows {
        let parsed = LegacySpec::parse(spec);
        let expected = match *expected {
            Ok((name, nr_ringid, nr_flags, nr_arg2)) => {
                Ok(LegacySpec { nr_name: name.into(), nr_ringid, nr_flags, nr_arg2 })
            }
            Err(text) => Err(SpecError::invalid(text)),
        };
        assert_eq!(parsed, expected, "{spec}");
    }
    assert_eq!(LegacySpec::parse("eth0").unwrap_err().errno, Errno(0));
    assert_eq!(LegacySpec::parse("netmap").unwrap_err().errno, Errno(0));
}

#[test]
fn vale_names_split_within_limits() {
    assert_eq!(split_vale("vale0:port"), Ok(("vale0", "port")));
    assert_eq!(split_vale("vale:"), Ok(("vale", "")));
    assert_eq!(split_vale("vale0:a:b-c"), Ok(("vale0", "a:b-c")));
    assert_eq!(split_vale("vale23456789abc:0123456789abcde"), Ok(("vale23456789abc", "0123456789abcde")));
    assert_eq!(split_vale("vale23456789abcd:x"), Err(ValeNameError::SwitchTooLong(16)));
    assert_eq!(split_vale("vale0:0123456789abcdef"), Err(ValeNameError::PortTooLong(16)));
    assert_eq!(split_vale("vale.:x"), Err(ValeNameError::Identifier(4)));
    assert_eq!(split_vale("vale0"), Err(ValeNameError::NoColon));
    assert_eq!(split_vale("val3:x"), Err(ValeNameError::Prefix));
    assert!(is_vale_name("vale") && !is_vale_name("val3") && !is_vale_name(""));
    assert_eq!(ValeNameError::Prefix.errno(), Errno::EINVAL);
    assert_eq!(ValeNameError::NoColon.errno(), Errno::ENOMEM);
}

#[test]
fn pipe_names_split_at_the_right_bracket() {
    assert_eq!(split_pipe("foo"), None);
    assert_eq!(split_pipe("foo{1"), Some(("foo", PipeRole::Master, "1")));
    assert_eq!(split_pipe("foo}1"), Some(("foo", PipeRole::Slave, "1")));
    assert_eq!(split_pipe("a}1{2"), Some(("a}1", PipeRole::Master, "2")));
    assert_eq!(split_pipe("a{1}2"), Some(("a", PipeRole::Master, "1}2")));
    assert_eq!(split_pipe("a{1{2"), Some(("a{1", PipeRole::Master, "2")));
    assert_eq!(split_pipe("a}1}2"), Some(("a}1", PipeRole::Slave, "2")));
    assert_eq!(split_pipe("{"), Some(("", PipeRole::Master, "")));
    assert_eq!(PipeRole::Master.peer(), PipeRole::Slave);
    assert_eq!(PipeRole::Slave.peer().bracket(), '{');
}

#[test]
fn numbers_as_c_reads_them() {
    let rows = [
        ("", 0, 0),
        ("x", 0, 0),
        ("-", 0, 0),
        ("+-1", 0, 0),
        (" \t\n12x", 12, 5),
        ("-7", -7, 2),
        ("+7", 7, 2),
        ("9223372036854775807", i64::MAX, 19),
        ("9223372036854775808", i64::MAX, 19),
        ("-9223372036854775808", i64::MIN, 20),
        ("-9223372036854775809", i64::MIN, 20),
    ];
    for (text, value, read) in rows {
        let number = strtol(text);
        assert_eq!((number.value, number.read), (value, read), "{text}");
        assert_eq!(number.overflow, text.ends_with("808") && value > 0 || text.ends_with("809"), "{text}");
    }
    assert_eq!((atoi("4294967297"), atoi("99999999999999999999")), (1, -1));
}

/// Strings near the grammar: pieces of it in any order.
fn near_names() -> impl Strategy<Value = String> {
    const PIECES: &[&str] = &[
        "netmap:",
        "vale",
        "vale0:",
        "eth0",
        "a.b",
        "{",
        "}",
        "1",
        "-",
        "^",
        "*",
        "/",
        "x",
        "zrR",
        "q",
        "@",
        "@5",
        "@65536",
        "@conf",
        ":",
        "=",
        ",",
        "rings",
        "tx-rings",
        "slots=7",
        "@share=",
        "@extmem=f",
        "@extmem:file=",
        "@offset=",
        "@offset:initial=-3,bits=9",
        "@mode=copy",
        " ",
        "é",
        "99999999999999999999",
        "\0",
    ];
    let piece = proptest::sample::select(PIECES);
    const STARTS: &[&str] = &["netmap:", "netmap:e", "vale", "vale0:", ""];
    let start = proptest::sample::select(STARTS);
    (start, proptest::collection::vec(piece, 0..8)).prop_map(|(start, rest)| {
        let mut spec = String::from(start);
        spec.extend(rest);
        spec
    })
}

/// Parses anything without panic, and what is accepted reads back from its own text.
fn check_any(spec: &str) -> Result<(), TestCaseError> {
    let mut allowed = ParseOptions::new();
    allowed.enable("offset");
    if let Ok(parsed) = PortSpec::parse_with(spec, &allowed) {
        prop_assert!((1..64).contains(&parsed.name.len()) && parsed.nr_ringid < 4095);
        let shown = parsed.to_string();
        prop_assert_eq!(PortSpec::parse_with(&shown, &allowed), Ok(parsed), "{}", shown);
    }
    if let Ok(parsed) = LegacySpec::parse(spec) {
        prop_assert!(parsed.nr_name.len() < 16 && parsed.nr_ringid < 4095);
    }
    if let Some((parent, role, id)) = split_pipe(spec) {
        prop_assert_eq!(format!("{parent}{}{id}", role.bracket()), spec);
    }
    if let Ok((switch, port)) = split_vale(spec) {
        prop_assert_eq!(format!("{switch}:{port}"), spec);
        prop_assert!(switch.len() < 16 && port.len() < 16);
    }
    Ok(())
}

proptest! {
    #[test]
    fn any_string_is_safe(spec in any::<String>()) {
        check_any(&spec)?;
    }

    #[test]
    fn any_near_name_is_safe_and_reads_back(spec in near_names()) {
        check_any(&spec)?;
    }

    /// Where both grammars speak of the same things they agree.
    #[test]
    fn grammars_agree(name in "(netmap:[a-z]{1,9}|vale[a-z]{0,3}:[a-z]{0,7})", mode in "(|\\^|\\*|-[0-9]{1,3})",
                      flags in "(|/[xztrRT]{1,4})", mem in "(|@[1-9][0-9]{0,3})") {
        let spec = format!("{name}{mode}{flags}{mem}");
        let new = PortSpec::parse(&spec).unwrap();
        let old = LegacySpec::parse(&spec).unwrap();
        prop_assert_eq!(&new.name, &old.nr_name);
        prop_assert_eq!((new.nr_ringid, new.nr_mem_id), (old.nr_ringid, old.nr_arg2));
        prop_assert_eq!(u64::from(new.nr_mode) | new.nr_flags, u64::from(old.nr_flags));
    }
}
