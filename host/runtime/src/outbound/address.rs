//! Which addresses workers may reach. Everything that is not the public internet is refused by default, because what listens there (the
//! host itself, its neighbours, the metadata service of a cloud) takes a caller's position in the network for permission. Names are resolved
//! elsewhere; this file judges addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// What the operator allows beside the public internet. The default allows nothing more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressPolicy {
    /// Networks that workers may reach although they are refused by default, for example `10.20.0.0/16`.
    pub allow: Vec<IpNet>,
}

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix_len: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix_len)
}

const fn v6(a: u16, b: u16, c: u16, prefix_len: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0), prefix_len)
}

/// IPv4 outside the public internet: the IANA special-purpose registry, multicast, and one address of a cloud.
const REFUSED_V4: [Ipv4Net; 16] = [
    v4(0, 0, 0, 0, 8),        // this network; 0.0.0.0 reaches the host itself
    v4(10, 0, 0, 0, 8),       // private
    v4(100, 64, 0, 0, 10),    // shared by carriers, and private in some clouds
    v4(127, 0, 0, 0, 8),      // loopback
    v4(169, 254, 0, 0, 16),   // link-local, where clouds keep their metadata service
    v4(172, 16, 0, 0, 12),    // private
    v4(192, 0, 0, 0, 24),     // protocol assignments
    v4(192, 0, 2, 0, 24),     // documentation
    v4(192, 88, 99, 0, 24),   // relays of 6to4, withdrawn
    v4(192, 168, 0, 0, 16),   // private
    v4(198, 18, 0, 0, 15),    // benchmarks
    v4(198, 51, 100, 0, 24),  // documentation
    v4(203, 0, 113, 0, 24),   // documentation
    v4(224, 0, 0, 0, 4),      // multicast
    v4(240, 0, 0, 0, 4),      // reserved, and broadcast
    v4(168, 63, 129, 16, 32), // looks public; Azure answers it from the machine's own hypervisor
];

/// The part of IPv6 that is the public internet. Loopback, unspecified, IPv4-mapped and IPv4-compatible, unique-local, link-local, site-local
/// and multicast addresses lie outside.
const GLOBAL_V6: Ipv6Net = v6(0x2000, 0, 0, 3);

/// What of it is not.
const REFUSED_V6: [Ipv6Net; 4] = [
    v6(0x2001, 0, 0, 23),     // protocol assignments; Teredo, benchmarks and ORCHID among them
    v6(0x2001, 0xdb8, 0, 32), // documentation
    v6(0x2002, 0, 0, 16),     // 6to4
    v6(0x3fff, 0, 0, 20),     // documentation
];

/// The well-known prefix of NAT64. On a host without IPv4 every IPv4-only server is reached through it, so its addresses are judged by the
/// IPv4 address inside.
const NAT64: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96);

impl AddressPolicy {
    /// Whether a worker may reach the address.
    pub fn allows(&self, ip: IpAddr) -> bool {
        match ip {
            IpAddr::V4(v4) => self.allows_v4(v4),
            // An address that leads to an IPv4 address is never more open than that address, whatever networks the operator allows.
            IpAddr::V6(v6) => (is_public_v6(v6) || self.names(ip)) && embedded_v4(v6).all(|v4| self.allows_v4(v4)),
        }
    }

    fn allows_v4(&self, ip: Ipv4Addr) -> bool {
        !REFUSED_V4.iter().any(|net| net.contains(&ip)) || self.names(IpAddr::V4(ip))
    }

    fn names(&self, ip: IpAddr) -> bool {
        self.allow.iter().any(|net| net.contains(&ip))
    }
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    NAT64.contains(&ip) || (GLOBAL_V6.contains(&ip) && !REFUSED_V6.iter().any(|net| net.contains(&ip)))
}

/// The IPv4 addresses that a packet to this address can end at: each transition mechanism writes them into another place. A prefix of NAT64
/// that a network has chosen for itself cannot be told from any other address; a network that has one must filter it where it translates.
fn embedded_v4(ip: Ipv6Addr) -> impl Iterator<Item = Ipv4Addr> {
    let [a, b, c, d, e, f, g, h] = ip.segments();
    let join = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    let last = join(g, h);
    let found = match [a, b, c, d, e, f] {
        // IPv4-mapped, IPv4-translated, NAT64, and NAT64 for use inside of one network. `::` and `::1` are no IPv4-compatible addresses.
        [0, 0, 0, 0, 0, 0xffff] | [0, 0, 0, 0, 0xffff, 0] | [0x64, 0xff9b, 0, 0, 0, 0] | [0x64, 0xff9b, 1, ..] => [Some(last), None],
        [0, 0, 0, 0, 0, 0] if g != 0 || h > 1 => [Some(last), None],
        // 6to4.
        [0x2002, ..] => [Some(join(b, c)), None],
        // Teredo: the server, and the client with its bits inverted.
        [0x2001, 0, ..] => [Some(join(c, d)), Some(join(!g, !h))],
        // ISATAP has a marker in the interface identifier, under any prefix.
        [_, _, _, _, 0 | 0x200, 0x5efe] => [Some(last), None],
        _ => [None, None],
    };
    found.into_iter().flatten()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use proptest::prelude::*;

    use super::*;

    fn policy(allow: &[&str]) -> AddressPolicy {
        AddressPolicy { allow: allow.iter().map(|net| net.parse().unwrap()).collect() }
    }

    fn allows(policy: &AddressPolicy, ip: &str) -> bool {
        policy.allows(ip.parse().unwrap())
    }

    #[test]
    fn only_the_public_internet_is_allowed_by_default() {
        let policy = AddressPolicy::default();
        for ip in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.100.100.200",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "168.63.129.16",
            "::",
            "::1",
            "::2",
            "::ffff:8.8.8.8",
            "::8.8.8.8",
            "::ffff:0:8.8.8.8",
            "64:ff9b:1::808:808",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "100::1",
            "2001::1",
            "2001:2::1",
            "2001:10::1",
            "2001:db8::1",
            "2002:808:808::1",
            "3fff::1",
            "5f00::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "2606:4700::5efe:10.0.0.1",
            "2606:4700::200:5efe:127.0.0.1",
        ] {
            assert!(!allows(&policy, ip), "{ip}");
        }
        for ip in [
            "1.1.1.1",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "168.63.129.15",
            "2606:4700::1111",
            "2001:4860:4860::8888",
            "2a00::1",
            "64:ff9b::808:808",
            "2606:4700::5efe:8.8.8.8",
        ] {
            assert!(allows(&policy, ip), "{ip}");
        }
    }

    #[test]
    fn an_operator_opens_the_networks_named_and_nothing_else() {
        let policy = policy(&["127.0.0.0/8", "fd00::/8"]);
        assert!(allows(&policy, "127.0.0.1"));
        assert!(allows(&policy, "fd12::1"));
        assert!(!allows(&policy, "10.0.0.1"));
        assert!(!allows(&policy, "::1"));
        assert!(!allows(&policy, "::ffff:127.0.0.1"), "the mapped form is another address");
    }

    #[test]
    fn opening_all_of_ipv6_opens_no_ipv4() {
        let all_of_ipv6 = policy(&["::/0"]);
        assert!(allows(&all_of_ipv6, "::1"));
        assert!(!allows(&all_of_ipv6, "::ffff:127.0.0.1"));
        assert!(!allows(&all_of_ipv6, "::ffff:169.254.169.254"));
        assert!(allows(&policy(&["::/0", "127.0.0.0/8"]), "::ffff:127.0.0.1"));
    }

    /// Every way to write an IPv4 address into an IPv6 address that some network equipment takes out again.
    fn forms(ip: Ipv4Addr, filler: u64) -> Vec<Ipv6Addr> {
        let v4 = u128::from(u32::from(ip));
        let at = |prefix: u128| Ipv6Addr::from(prefix | v4);
        let filler = u128::from(filler);
        vec![
            ip.to_ipv6_mapped(),
            ip.to_ipv6_compatible(),
            at(0xffff_0000_0000),
            at(0x0064_ff9b << 96),
            at((0x0064_ff9b_0001 << 80) | ((filler & 0xffff_ffff) << 32)),
            Ipv6Addr::from((0x2002 << 112) | (v4 << 80) | filler),
            Ipv6Addr::from((0x2001 << 112) | (v4 << 64) | filler),
            Ipv6Addr::from((0x2001 << 112) | ((filler & 0xffff_ffff) << 64) | (v4 ^ 0xffff_ffff)),
            at((0x2606_4700 << 96) | (0x5efe << 32)),
            at((0x2606_4700 << 96) | (0x0200_5efe << 32)),
        ]
    }

    proptest! {
        #[test]
        fn no_form_of_a_refused_ipv4_address_is_allowed(net in 0..REFUSED_V4.len(), host: u32, filler: u64) {
            let net = REFUSED_V4[net];
            let ip = Ipv4Addr::from(u32::from(net.network()) | (host & u32::from(net.hostmask())));
            let default = AddressPolicy::default();
            let all_of_ipv6 = policy(&["::/0"]);
            prop_assert!(!default.allows(IpAddr::V4(ip)));
            for form in forms(ip, filler) {
                prop_assert!(!default.allows(IpAddr::V6(form)), "{form}");
                // `::` and `::1` are addresses of their own, which an operator who opens all of IPv6 has opened.
                if u128::from(form) > 1 {
                    prop_assert!(!all_of_ipv6.allows(IpAddr::V6(form)), "{form} with ::/0");
                }
            }
        }

        #[test]
        fn what_the_operator_names_is_allowed_and_the_rest_stays_as_it_was(named: u32, prefix_len in 8u8..=32, other: u32) {
            let net = Ipv4Net::new(Ipv4Addr::from(named), prefix_len).unwrap();
            let opened = AddressPolicy { allow: vec![IpNet::V4(net)] };
            prop_assert!(opened.allows(IpAddr::V4(Ipv4Addr::from(named))));
            let other = Ipv4Addr::from(other);
            if !net.contains(&other) {
                prop_assert_eq!(opened.allows(IpAddr::V4(other)), AddressPolicy::default().allows(IpAddr::V4(other)));
            }
        }
    }
}
