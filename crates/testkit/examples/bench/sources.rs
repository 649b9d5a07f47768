//! What is backed up.

use std::fs;
use std::io::Write;
use std::path::Path;
use testkit::tree::Random;

/// Alternating MiB of noise and of text.
pub fn big(path: &Path, bytes: usize) {
    let mut file = fs::File::create(path).expect("a file can be made");
    let mut random = Random::new(1);
    let mut left = bytes;
    let mut noise = true;
    while left > 0 {
        let length = left.min(1 << 20);
        let block = if noise { random.bytes(length) } else { random.text(length) };
        file.write_all(&block).expect("it can be written");
        left -= length;
        noise = !noise;
    }
}

/// Files of up to 4 KiB, a hundred in a directory.
pub fn small(root: &Path, files: usize, seed: u64) {
    let mut random = Random::new(seed);
    for number in 0..files {
        small_file(root, number, &mut random);
    }
}

/// Other content for every `step`th of them.
pub fn change(root: &Path, files: usize, step: usize, seed: u64) {
    let mut random = Random::new(seed);
    for number in (seed as usize % step..files).step_by(step) {
        small_file(root, number, &mut random);
    }
}

fn small_file(root: &Path, number: usize, random: &mut Random) {
    let directory = root.join(format!("{:04}", number / 100));
    fs::create_dir_all(&directory).expect("a directory can be made");
    let length = random.below(4096) as usize;
    fs::write(directory.join(format!("{number}")), random.bytes(length)).expect("a file can be made");
}

/// Files from 4 KiB to 2 MiB, half noise and half text; every second is the same for all clients.
pub fn mixed(root: &Path, bytes: usize, client: usize) {
    let (mut shared, mut own) = (Random::new(77), Random::new(1000 + client as u64));
    let (mut left, mut number) = (bytes, 0);
    while left > 0 {
        let random = if number % 2 == 0 { &mut shared } else { &mut own };
        let length = (4096usize << (number / 2 % 10)).min(left);
        let block = if number % 4 < 2 { random.bytes(length) } else { random.text(length) };
        let directory = root.join(format!("{:03}", number / 50));
        fs::create_dir_all(&directory).expect("a directory can be made");
        fs::write(directory.join(format!("{number}")), block).expect("a file can be made");
        left -= length;
        number += 1;
    }
}

/// Borg never trusts the newest files of a run; with a newer one beside them the others are not read again each time.
pub fn age(root: &Path) {
    std::thread::sleep(std::time::Duration::from_millis(1100));
    fs::write(root.join("newest"), "x").expect("it can be written");
}
