"""Addresses have many spellings, and are compared as addresses."""

from __future__ import annotations

import socket
from ipaddress import ip_address, ip_network

import pytest

from dicom_quarry.system import addresses
from dicom_quarry.system.addresses import THIS_COMPUTER, identify_computer, normalize_host, parse_address


@pytest.mark.parametrize(
    ("host", "normal"),
    [
        ("10.1.2.3", "10.1.2.3"),
        ("::ffff:10.1.2.3", "10.1.2.3"),
        ("::FFFF:a01:203", "10.1.2.3"),
        ("[2001:DB8:0::1]", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("PACS.Example.org.", "pacs.example.org"),
        ("b\u00fccher.example", "xn--bcher-kva.example"),
        ("\u00fc" * 80, "\u00fc" * 80),
    ],
)
def test_one_spelling_of_a_host(host: str, normal: str) -> None:
    assert normalize_host(host) == normal


def test_a_network_of_mapped_addresses_is_one_of_ipv4() -> None:
    for text, normal in (
        ("::ffff:10.1.2.0/120", "10.1.2.0/24"),
        ("2001:db8::/32", "2001:db8::/32"),
        ("10.0.0.0/8", "10.0.0.0/8"),
    ):
        assert addresses.normalize_network(ip_network(text)) == ip_network(normal)


def test_all_addresses_of_this_computer_are_one() -> None:
    own = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with own:
        own.bind(("127.0.0.9", 0))
    for text in ("127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1", "0.0.0.0", "::"):
        address = parse_address(text)
        assert address is not None and identify_computer(address) == THIS_COMPUTER
    assert identify_computer(ip_address("192.0.2.1")) == ip_address("192.0.2.1")


@pytest.mark.parametrize("host", ["", "a" * 300, "\x00", "..", "pacs..example"])
def test_a_name_that_is_none_is_an_oserror(host: str) -> None:
    try:
        addresses.resolve(host)
    except OSError:
        return
    assert host == "", "an empty name may be this computer"
