//! A component of a certain size: the guest `hello` with a module beside it that nothing calls. It has to be stored, compiled, mapped and checked like
//! code that is used.

use std::fs;

use crate::guests;

/// Arithmetic in one function. Compilers take more than linear time for longer ones, which no program has many of.
const OPERATIONS: usize = 150;

/// A component of about so many bytes. Each number makes another one.
pub fn of_bytes(bytes: usize, number: u32) -> anyhow::Result<Vec<u8>> {
    let mut component = fs::read(guests::path("hello")?)?;
    let mut random = number.wrapping_mul(2_654_435_761) | 1;
    let mut bodies = Vec::new();
    let mut functions = 0_u32;
    while component.len() + bodies.len() < bytes {
        let body = body(&mut random);
        unsigned(&mut bodies, body.len());
        bodies.extend_from_slice(&body);
        functions += 1;
    }
    let mut module = b"\0asm\x01\0\0\0".to_vec();
    // One type, (i32) -> i32, which all functions have.
    section(&mut module, 1, &[1, 0x60, 1, 0x7f, 1, 0x7f]);
    let mut types = Vec::new();
    unsigned(&mut types, functions as usize);
    types.resize(types.len() + functions as usize, 0);
    section(&mut module, 3, &types);
    let mut code = Vec::new();
    unsigned(&mut code, functions as usize);
    code.extend_from_slice(&bodies);
    section(&mut module, 10, &code);
    // A section of a component that holds a module.
    section(&mut component, 1, &module);
    Ok(component)
}

/// A function that mixes its argument with constants, so that nothing of it can be left out.
fn body(random: &mut u32) -> Vec<u8> {
    const LOCAL_GET: [u8; 2] = [0x20, 0];
    const CONST: u8 = 0x41;
    // add, sub, mul, and, or, xor, shl, rotl of i32.
    const MIX: [u8; 8] = [0x6a, 0x6b, 0x6c, 0x71, 0x72, 0x73, 0x74, 0x77];
    // No locals beside the argument.
    let mut body = vec![0];
    body.extend_from_slice(&LOCAL_GET);
    for _ in 0..OPERATIONS {
        *random ^= *random << 13;
        *random ^= *random >> 17;
        *random ^= *random << 5;
        body.push(CONST);
        // Below 2^20, so that the signed form is the unsigned one and three bytes.
        unsigned(&mut body, (*random >> 12) as usize | 1 << 14);
        body.extend(MIX.get(*random as usize % MIX.len()));
    }
    body.push(0x0b);
    body
}

fn section(into: &mut Vec<u8>, id: u8, content: &[u8]) {
    into.push(id);
    unsigned(into, content.len());
    into.extend_from_slice(content);
}

/// LEB128.
fn unsigned(into: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        into.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    into.push(value as u8);
}
