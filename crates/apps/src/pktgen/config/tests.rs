//! Command lines, the configurations they mean, and the lines they print.

use super::*;
use crate::pktgen::options::split;
use crate::units::SharedBytes;
use std::time::Duration;

/// The configuration, or the exit status, and the D-lines without time and line number.
fn check(line: &str) -> (Result<Config, u8>, Vec<String>) {
    let given = split(line.split_whitespace().map(Into::into)).unwrap();
    let out = SharedBytes::default();
    let log = DLog::new(out.clone(), || Duration::ZERO);
    let config = read(&given, 4, &log);
    let text = out.text();
    let lines = text.lines().filter_map(|l| l.strip_prefix("000.000000 ")?.split_once("] "));
    (config, lines.map(|(_, text)| text.to_owned()).collect())
}

#[test]
fn the_smallest_line_and_its_d_lines() {
    let (config, lines) = check("pkt-gen -i eth0");
    let config = config.unwrap();
    assert_eq!((config.function, config.burst, config.size), (Function::Rx, 512, 60));
    assert_eq!((config.wait_secs, config.options), (2, 0));
    assert_eq!(
        lines,
        [
            "interface is netmap:eth0",
            "using default burst size: 512",
            "running on 1 cpus (have 4)",
            "range is 10.0.0.1:1234 to 10.0.0.1:1234",
            "range is 10.1.0.1:1234 to 10.1.0.1:1234",
        ]
    );
}

#[test]
fn wrong_values_end_with_their_line() {
    let long = format!("pkt-gen -i {}", "x".repeat(505));
    for (line, want) in [
        ("pkt-gen", "missing ifname"),
        (&long, "missing ifname"),
        ("pkt-gen -i x -l 15", "bad pktsize 15 [16..65536]"),
        ("pkt-gen -i x -l 65537", "bad pktsize 65537 [16..65536]"),
        ("pkt-gen -i x -l 100 -l 101", "bad pktminsize 101 [16..100]"),
        ("pkt-gen -i x -c 5", "5 cpus is too high, have only 4 cpus"),
        ("pkt-gen -i x -H 11", "bad virtio-net-header length"),
        ("pkt-gen -i x -D no", "invalid MAC address 'no'"),
        ("pkt-gen -i x -S 1:2", "invalid MAC address '1:2'"),
        ("pkt-gen -i x -n many", "bad option n 'many' is not a possible number"),
        ("pkt-gen -i x -d 10.0.0", "bad address '10.0.0' in the range '10.0.0'"),
    ] {
        let (config, lines) = check(line);
        assert_eq!(config.unwrap_err(), 255, "{line}");
        assert_eq!(lines.last().unwrap(), want, "{line}");
    }
    assert!(check(&long).1[0].starts_with("ifname too long xxx"));
    assert_eq!(check("pkt-gen -h -l 1").0.unwrap_err(), 0);
    assert_eq!(check("pkt-gen -i tap0").0.unwrap_err(), 255);
    assert_eq!(check("pkt-gen -i pcap:x").0.unwrap_err(), 255);
}

#[test]
fn later_options_win() {
    let config = check("pkt-gen -i a -i vale0:b -f tx -f nope -b 5 -b 9 -l 100 -l 60 -6 -4").0.unwrap();
    assert_eq!((config.ifname.as_str(), config.function), ("vale0:b", Function::Tx));
    assert_eq!((config.burst, config.size, config.min_size), (9, 100, Some(60)));
    assert_eq!((config.wait_secs, config.ipv6), (0, false));
    assert_eq!(check("pkt-gen -i vale0:b -w 3").0.unwrap().wait_secs, 3);
    assert_eq!(check("pkt-gen -i x -l 60 -l 60").0.unwrap().min_size, None);
    let (config, lines) = check("pkt-gen -i x -F 64 -F 3 -F 0");
    assert_eq!(config.unwrap().frags, 3);
    assert!(lines.contains(&"invalid frags 64 [1..63], ignore".to_owned()));
}

#[test]
fn masks_ranges_and_rates() {
    let config = check("pkt-gen -i x -o 2 -o 0x1000 -zZrXAI -d 10.0.0.2-10.0.0.1").0.unwrap();
    assert_eq!(config.options, 2 | 4096 | 512 | 1024 | 256 | 64 | 2048 | 32 | 4);
    assert_eq!(config.dst.1, "10.0.0.2-10.0.0.1");
    let config = check("pkt-gen -i x -R 3000").0.unwrap();
    assert_eq!((config.burst, config.period), (10, Duration::from_nanos(3_333_333)));
    let config = check("pkt-gen -i x -f tx -R 2").0.unwrap();
    assert_eq!((config.burst, config.period), (1, Duration::from_millis(500)));
}

#[test]
fn geometries() {
    let of = |text: &str| {
        let (config, lines) = check(&format!("pkt-gen -i x -C {text}"));
        (config.unwrap().geometry.unwrap(), lines.iter().any(|l| l == "ignored config: 9,8"))
    };
    assert_eq!(of("100"), ([100, 100, 0, 0], false));
    assert_eq!(of("100,50"), ([100, 50, 0, 0], false));
    assert_eq!(of("100,50,2"), ([100, 50, 2, 2], false));
    assert_eq!(of("100,50,2,1,9,8"), ([100, 50, 2, 1], true));
}

#[test]
fn packets_are_shared_out_completely() {
    for (packets, threads) in [(10, 3), (1, 2), (9, 3), (2, 5)] {
        let mut config = check(&format!("pkt-gen -i x -n {packets} -p {threads}")).0.unwrap();
        let total: u64 = (0..threads).map(|id| config.share(id).unwrap()).sum();
        assert_eq!(total, packets);
        config.npackets = 0;
        assert_eq!(config.share(0), None);
    }
}

#[test]
fn a_packet_from_a_file_brings_its_size() {
    let path = std::env::temp_dir().join(format!("ringway-pktgen-{}.pcap", std::process::id()));
    let file = File::create(&path).unwrap();
    let mut writer =
        capture::Writer::new(file, capture::LINK_ETHERNET, 100, capture::Resolution::Micros).unwrap();
    writer.write(0, 77, &[5; 77]).unwrap();
    let line = format!("pkt-gen -i x -l 60 -P {}", path.display());
    let tx = check(&format!("{line} -f tx")).0.unwrap();
    assert_eq!((tx.size, tx.packet.as_deref()), (77, Some(&[5; 77][..])));
    // Of no use to a receiver.
    assert_eq!(check(&line).0.unwrap().size, 60);
    std::fs::remove_file(&path).unwrap();
    let (config, lines) = check(&format!("{line} -f tx"));
    assert_eq!(config.unwrap_err(), 255);
    assert!(lines.last().unwrap().starts_with("cannot take a packet from '"), "{lines:?}");
}
