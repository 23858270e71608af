//! Writes the seeds into the corpus: `cargo run --manifest-path fuzz/Cargo.toml --example seeds`.

fn main() -> std::io::Result<()> {
    for (target, _) in ringway_fuzz::TARGETS {
        let dir = ringway_fuzz::corpus(target);
        std::fs::create_dir_all(&dir)?;
        for (name, bytes) in ringway_fuzz::seeds::seeds(target) {
            std::fs::write(dir.join(name), bytes)?;
        }
    }
    Ok(())
}
