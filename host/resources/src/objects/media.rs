//! What the type and the first bytes of an object say about it: whether a browser would run it, and whether a public picture is a program.

use super::Error;
use super::paths::essence;

/// How many bytes at the beginning of an object are looked at.
pub(super) const HEAD_BYTES: usize = 512;

/// Types that a browser may run or render as a page of the origin that they come from.
const ACTIVE: [&str; 12] = [
    "text/html",
    "text/xml",
    "text/xsl",
    "text/javascript",
    "text/ecmascript",
    "text/cache-manifest",
    "application/xml",
    "application/javascript",
    "application/x-javascript",
    "application/ecmascript",
    "application/x-shockwave-flash",
    "multipart/x-mixed-replace",
];

/// Beginnings of programs.
const PROGRAMS: [&[u8]; 8] =
    [b"\x7fELF", b"MZ", b"\0asm", b"\xfe\xed\xfa\xce", b"\xfe\xed\xfa\xcf", b"\xce\xfa\xed\xfe", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe"];

/// Beginnings of pages and of scripts that servers run, in lower case.
const PAGES: [&[u8]; 9] = [b"<!doctype html", b"<html", b"<head", b"<body", b"<script", b"<iframe", b"<?php", b"<%", b"<!--"];

/// Whether an object of this type is to be served as an attachment, because a browser that shows it may run what is in it.
pub fn is_active(content_type: &str) -> bool {
    let essence = essence(content_type);
    ACTIVE.contains(&essence.as_str()) || essence.ends_with("+xml")
}

/// Refuses a public object of a media type whose first bytes are those of a program, a script or a page.
pub(super) fn check(content_type: &str, head: &[u8]) -> Result<(), Error> {
    let essence = essence(content_type);
    let media = ["image/", "audio/", "video/", "font/"].iter().any(|kind| essence.starts_with(kind));
    match found(head, essence.ends_with("+xml")).filter(|_| media) {
        Some(found) => Err(Error::Media { declared: content_type.to_owned(), found }),
        None => Ok(()),
    }
}

fn found(head: &[u8], markup: bool) -> Option<&'static str> {
    if PROGRAMS.iter().any(|magic| head.starts_with(magic)) {
        return Some("a program");
    }
    // Formats of sound begin with `#!` and their name, scripts with the path of their interpreter.
    if head.strip_prefix(b"#!").is_some_and(|rest| rest.trim_ascii_start().starts_with(b"/")) {
        return Some("a script");
    }
    let text = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_ascii_start();
    let begins = |with: &[u8]| text.get(..with.len()).is_some_and(|start| start.eq_ignore_ascii_case(with));
    if PAGES.iter().filter(|page| !markup || **page != b"<!--").any(|page| begins(page)) {
        return Some("a page or a script");
    }
    (!markup && (begins(b"<svg") || begins(b"<?xml"))).then_some("markup")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_that_are_programs_scripts_or_pages_are_refused() {
        for (content_type, head) in [
            ("image/png", &b"\x7fELF\x02\x01"[..]),
            ("image/png", b"MZ\x90\0"),
            ("video/mp4", b"\0asm\x01\0\0\0"),
            ("audio/mpeg", b"#!/bin/sh\n"),
            ("Image/GIF; x=y", b"#! /usr/bin/env python"),
            ("image/jpeg", b"\xef\xbb\xbf \n<ScRiPt>alert(1)"),
            ("image/jpeg", b"<!DOCTYPE HTML>"),
            ("image/jpeg", b"<?php system($_GET[0]);"),
            ("image/png", b"<svg xmlns="),
            ("image/svg+xml", b"<html>"),
        ] {
            assert!(matches!(check(content_type, head), Err(Error::Media { .. })), "{content_type} {head:?}");
        }
        for (content_type, head) in [
            ("image/png", &b"\x89PNG\r\n\x1a\n"[..]),
            ("image/svg+xml", b"<?xml version=\"1.0\"?><svg>"),
            ("image/svg+xml", b"<!-- made by hand --><svg>"),
            ("audio/amr", b"#!AMR\n"),
            ("text/html", b"<html>"),
            ("application/octet-stream", b"\x7fELF"),
            ("image/png", b""),
        ] {
            assert!(check(content_type, head).is_ok(), "{content_type} {head:?}");
        }
    }

    #[test]
    fn what_browsers_run_is_told_apart() {
        for active in ["text/html", "TEXT/HTML;charset=utf-8", "image/svg+xml", "application/xhtml+xml", "text/javascript", "application/xml"] {
            assert!(is_active(active), "{active}");
        }
        for passive in ["image/png", "text/plain", "application/json", "application/pdf", "video/mp4", "application/wasm"] {
            assert!(!is_active(passive), "{passive}");
        }
    }
}
