//! Chains to be accepted and refused, judged by webpki (what rustls uses) and by OpenSSL.

use std::{fmt::Write as _, net::IpAddr, time::Duration};

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, NameConstraints, SanType,
};
use rustls_pki_types::CertificateDer;
use vault::pki::{Algorithm, Authority, Purpose, Role, certificates, encode_certificates, verify};

use super::tools::{DAY, Files, intermediate, node, noon, openssl, root, service};

/// Whether a chain is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Yes,
    No,
    /// They differ, and it's no matter of ours: why is said where it stands.
    Other,
}

use Verdict::{No, Other, Yes};

struct Case {
    what: &'static str,
    chain: Vec<CertificateDer<'static>>,
    root: CertificateDer<'static>,
    role: Role<'static>,
    at: Timestamp,
    revoked: Vec<String>,
    webpki: Verdict,
    openssl: Verdict,
}

/// An authority that does as it is told: for certificates that ours wouldn't make.
struct Lax {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = rcgen::date_time_ymd(2026, 1, 1);
    params.not_after = rcgen::date_time_ymd(2028, 1, 1);
    params.use_authority_key_identifier_extension = true;
    params
}

fn authority_params(name: &str) -> CertificateParams {
    let mut params = params(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn leaf_params(dns: &str) -> CertificateParams {
    let mut params = params("leaf");
    params.subject_alt_names = vec![SanType::DnsName(dns.try_into().unwrap())];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params
}

impl Lax {
    fn root(params: CertificateParams) -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().into();
        Self {
            certificate,
            issuer: Issuer::new(params, key),
        }
    }

    fn below(&self, params: CertificateParams) -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().into();
        Self {
            certificate,
            issuer: Issuer::new(params, key),
        }
    }

    fn leaf(&self, params: &CertificateParams) -> CertificateDer<'static> {
        params
            .signed_by(&KeyPair::generate().unwrap(), &self.issuer)
            .unwrap()
            .into()
    }
}

fn chain(pem: &str) -> Vec<CertificateDer<'static>> {
    certificates(pem).unwrap()
}

const API: Role<'static> = Role::Server("api.example.com");

/// What our authorities issue.
fn ours(cases: &mut Vec<Case>) {
    let root = root(noon());
    let between = intermediate(&root, noon());
    let sans = ["api.example.com", "*.gpu.example.com", "10.0.0.7", "2001:db8::7"];
    let request = service(&sans, Purpose::Server);
    let server = between.issue(&request, Algorithm::EcdsaP256, noon()).unwrap().leaf;
    let direct = root.issue(&request, Algorithm::Rsa2048, noon()).unwrap().leaf;
    let client = between
        .issue(&node("gpu-7"), Algorithm::EcdsaP256, noon())
        .unwrap()
        .leaf;
    let both = between
        .issue(&service(&sans, Purpose::Both), Algorithm::EcdsaP384, noon())
        .unwrap()
        .leaf;
    let case = |what, chain_pem: &str, role, webpki, openssl| Case {
        what,
        chain: chain(chain_pem),
        root: root.root().clone(),
        role,
        at: noon(),
        revoked: Vec::new(),
        webpki,
        openssl,
    };
    let second = Duration::from_secs(1);
    cases.extend([
        case("a server by its name", &server.chain_pem, API, Yes, Yes),
        case("issued by the root itself", &direct.chain_pem, API, Yes, Yes),
        case(
            "in other letters",
            &server.chain_pem,
            Role::Server("API.Example.COM"),
            Yes,
            Yes,
        ),
        case("by its address", &server.chain_pem, Role::Server("10.0.0.7"), Yes, Yes),
        case(
            "by its IPv6 address",
            &server.chain_pem,
            Role::Server("2001:db8::7"),
            Yes,
            Yes,
        ),
        case(
            "by its wildcard",
            &server.chain_pem,
            Role::Server("n1.gpu.example.com"),
            Yes,
            Yes,
        ),
        case(
            "wildcard, two labels",
            &server.chain_pem,
            Role::Server("a.n1.gpu.example.com"),
            No,
            No,
        ),
        case(
            "wildcard, no label",
            &server.chain_pem,
            Role::Server("gpu.example.com"),
            No,
            No,
        ),
        case(
            "another name",
            &server.chain_pem,
            Role::Server("web.example.com"),
            No,
            No,
        ),
        case(
            "a name below",
            &server.chain_pem,
            Role::Server("x.api.example.com"),
            No,
            No,
        ),
        case("its common name", &server.chain_pem, Role::Server("api"), No, No),
        case("another address", &server.chain_pem, Role::Server("10.0.0.8"), No, No),
        // webpki takes the dot for the absolute form of the same name, OpenSSL for another name.
        case(
            "a name with a trailing dot",
            &server.chain_pem,
            Role::Server("api.example.com."),
            Yes,
            No,
        ),
        case("a server as a client", &server.chain_pem, Role::Client, No, No),
        case("a node as a client", &client.chain_pem, Role::Client, Yes, Yes),
        case("a node as a server", &client.chain_pem, Role::Server("gpu-7"), No, No),
        case("both as a server", &both.chain_pem, API, Yes, Yes),
        case("both as a client", &both.chain_pem, Role::Client, Yes, Yes),
        case("the intermediate missing", &server.certificate_pem, API, No, No),
        Case {
            chain: {
                let mut doubled = chain(&server.chain_pem);
                doubled.insert(1, root.root().clone());
                doubled.push(doubled[2].clone());
                doubled
            },
            ..case(
                "intermediates doubled, the root among them",
                &server.chain_pem,
                API,
                Yes,
                Yes,
            )
        },
        Case {
            at: server.not_before,
            ..case("in its first second", &server.chain_pem, API, Yes, Yes)
        },
        Case {
            at: server.not_before - second,
            ..case("too early", &server.chain_pem, API, No, No)
        },
        Case {
            at: server.not_after,
            // OpenSSL counts it as past, RFC 5280 doesn't.
            ..case("in its last second", &server.chain_pem, API, Yes, Other)
        },
        Case {
            at: server.not_after + second,
            ..case("expired", &server.chain_pem, API, No, No)
        },
        Case {
            // OpenSSL knows by lists only, which have their own tests.
            revoked: vec![server.serial.clone()],
            ..case("revoked", &server.chain_pem, API, No, Other)
        },
        Case {
            revoked: vec![client.serial.clone()],
            ..case("another revoked", &server.chain_pem, API, Yes, Yes)
        },
        Case {
            root: super::tools::root(noon()).root().clone(),
            ..case("a root of the same name", &server.chain_pem, API, No, No)
        },
    ]);
    let brief = Authority::new_intermediate(&root, "brief", Algorithm::EcdsaP256, DAY, noon()).unwrap();
    let request = node("gpu-7");
    let leaf = brief.issue(&request, Algorithm::EcdsaP256, noon()).unwrap().leaf;
    assert_eq!(leaf.not_after, brief.not_after());
    cases.push(Case {
        at: noon() + DAY + second,
        ..case("with its authority's end", &leaf.chain_pem, Role::Client, No, No)
    });
    let mut torn = chain(&direct.chain_pem);
    let mut bytes = torn[0].to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    torn[0] = bytes.into();
    cases.push(Case {
        chain: torn,
        ..case("a torn signature", &direct.chain_pem, API, No, No)
    });
}

/// What ours would never issue.
fn others(cases: &mut Vec<Case>) {
    let case = |what, root: &Lax, chain: Vec<CertificateDer<'static>>, webpki, openssl| Case {
        what,
        chain,
        root: root.certificate.clone(),
        role: API,
        at: noon(),
        revoked: Vec::new(),
        webpki,
        openssl,
    };
    let leaf = leaf_params("api.example.com");
    let root = Lax::root(authority_params("lax root"));
    cases.push(case("lax, but right", &root, vec![root.leaf(&leaf)], Yes, Yes));

    let middle = root.below(leaf_params("api.example.com"));
    cases.push(case(
        "a leaf as an authority",
        &root,
        vec![middle.leaf(&leaf), middle.certificate],
        No,
        No,
    ));

    let mut unsaid = params("no constraints");
    unsaid.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let middle = root.below(unsaid);
    cases.push(case(
        "an authority that doesn't say so",
        &root,
        vec![middle.leaf(&leaf), middle.certificate],
        No,
        No,
    ));

    let mut unable = authority_params("no signing");
    unable.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let middle = root.below(unable);
    // webpki leaves key usage to whoever issues.
    cases.push(case(
        "an authority that may not sign",
        &root,
        vec![middle.leaf(&leaf), middle.certificate],
        Other,
        No,
    ));

    let mut short = authority_params("short");
    short.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let short = root.below(short);
    let below = short.below(authority_params("too deep"));
    let deep = vec![below.leaf(&leaf), below.certificate.clone(), short.certificate.clone()];
    cases.push(case("deeper than the path length", &root, deep, No, No));
    cases.push(case(
        "as deep as the path length",
        &root,
        vec![short.leaf(&leaf), short.certificate],
        Yes,
        Yes,
    ));

    let mut narrow = authority_params("clients only");
    narrow.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let narrow = root.below(narrow);
    cases.push(case(
        "an authority for clients only",
        &root,
        vec![narrow.leaf(&leaf), narrow.certificate],
        No,
        No,
    ));

    let mut old = authority_params("old");
    old.not_after = rcgen::date_time_ymd(2026, 6, 1);
    let old = root.below(old);
    cases.push(case(
        "an authority that expired",
        &root,
        vec![old.leaf(&leaf), old.certificate],
        No,
        No,
    ));

    let mut old = authority_params("old root");
    old.not_after = rcgen::date_time_ymd(2026, 6, 1);
    let old = Lax::root(old);
    cases.push(case("a root that expired", &old, vec![old.leaf(&leaf)], No, No));

    let mut fenced = authority_params("fenced");
    fenced.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![GeneralSubtree::DnsName("example.com".to_owned())],
        excluded_subtrees: Vec::new(),
    });
    let fenced = root.below(fenced);
    cases.push(case(
        "within its constraints",
        &root,
        vec![fenced.leaf(&leaf), fenced.certificate.clone()],
        Yes,
        Yes,
    ));
    let outside = leaf_params("api.example.org");
    cases.push(Case {
        role: Role::Server("api.example.org"),
        ..case(
            "outside its constraints",
            &root,
            vec![fenced.leaf(&outside), fenced.certificate],
            No,
            No,
        )
    });

    let foreign = Lax::root(authority_params("foreign"));
    cases.push(case("a foreign root", &root, vec![foreign.leaf(&leaf)], No, No));
    let own = leaf.self_signed(&KeyPair::generate().unwrap()).unwrap();
    cases.push(case("signed by itself", &root, vec![own.into()], No, No));

    let mut unknown = leaf_params("api.example.com");
    let mut extension = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 55555, 1], vec![5, 0]);
    extension.set_criticality(true);
    unknown.custom_extensions = vec![extension];
    cases.push(case(
        "a critical extension that nobody knows",
        &root,
        vec![root.leaf(&unknown)],
        No,
        No,
    ));

    let mut nameless = leaf_params("api.example.com");
    nameless.subject_alt_names = Vec::new();
    nameless.distinguished_name.push(DnType::CommonName, "api.example.com");
    // OpenSSL still takes the common name where there is no other.
    cases.push(case("a common name only", &root, vec![root.leaf(&nameless)], No, Other));

    let textual = leaf_params("10.0.0.7");
    cases.push(Case {
        role: Role::Server("10.0.0.7"),
        ..case(
            "an address written as a DNS name",
            &root,
            vec![root.leaf(&textual)],
            No,
            No,
        )
    });
    let broad = leaf_params("*.com");
    cases.push(Case {
        role: Role::Server("example.com"),
        ..case("a wildcard for everybody", &root, vec![root.leaf(&broad)], No, No)
    });
    let inner = leaf_params("api.*.com");
    cases.push(case("a wildcard in the middle", &root, vec![root.leaf(&inner)], No, No));
}

fn webpki_says(case: &Case) -> Verdict {
    let (leaf, between) = case.chain.split_first().unwrap();
    let revoked = |serial: &str| case.revoked.iter().any(|one| one == serial);
    match verify(leaf, between, &case.root, &case.role, case.at, &revoked) {
        Ok(()) => Yes,
        Err(_) => No,
    }
}

fn openssl_says(case: &Case, files: &Files) -> (Verdict, String) {
    let root = files.write("root.pem", encode_certificates([&case.root]));
    let leaf = files.write("leaf.pem", encode_certificates(&case.chain[..1]));
    let between = files.write("between.pem", encode_certificates(&case.chain[1..]));
    let role = match &case.role {
        Role::Client => "-purpose sslclient".to_owned(),
        Role::Server(host) if host.parse::<IpAddr>().is_ok() => format!("-purpose sslserver -verify_ip {host}"),
        Role::Server(host) => format!("-purpose sslserver -verify_hostname {host}"),
    };
    // An empty file isn't one of certificates.
    let between = if case.chain.len() > 1 {
        format!("-untrusted {between}")
    } else {
        String::new()
    };
    let at = case.at.as_second();
    let said = openssl(format!(
        "verify -CAfile {root} -no-CApath -no-CAstore -attime {at} {between} {role} {leaf}"
    ));
    (if said.ok { Yes } else { No }, said.text)
}

#[test]
fn webpki_and_openssl_accept_and_refuse_as_they_should() {
    let mut cases = Vec::new();
    ours(&mut cases);
    others(&mut cases);
    let files = Files::new();
    let mut wrong = String::new();
    for case in &cases {
        let webpki = webpki_says(case);
        if case.webpki != Other && case.webpki != webpki {
            writeln!(wrong, "{}: webpki says {webpki:?}", case.what).unwrap();
        }
        let (openssl, text) = openssl_says(case, &files);
        if case.openssl != Other && case.openssl != openssl {
            writeln!(wrong, "{}: OpenSSL says {openssl:?}: {text}", case.what).unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn what_we_issue_stands_openssls_strict_rules() {
    let files = Files::new();
    let root = root(noon());
    let between = intermediate(&root, noon());
    for authority in [&root, &between] {
        let leaf = authority
            .issue(&service(&["a.b"], Purpose::Both), Algorithm::EcdsaP256, noon())
            .unwrap()
            .leaf;
        let node = authority
            .issue(&node("gpu-7"), Algorithm::EcdsaP256, noon())
            .unwrap()
            .leaf;
        let root = files.write("root.pem", authority.root_pem());
        let at = noon().as_second();
        for leaf in [leaf, node] {
            let chain = files.write("chain.pem", &leaf.chain_pem);
            let leaf = files.write("leaf.pem", &leaf.certificate_pem);
            let strict = "-x509_strict -policy_check -auth_level 2";
            openssl(format!(
                "verify {strict} -attime {at} -CAfile {root} -untrusted {chain} {leaf}"
            ))
            .accepted();
        }
    }
}
