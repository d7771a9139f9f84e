import pytest
from datatrove.data import Document

from data_prep.curation.registry import build_step
from data_prep.steps.filters.ip_addresses import without_ip_addresses
from data_prep.steps.filters.phone_numbers import without_phones
from data_prep.steps.filters.pii import PiiSettings


@pytest.mark.parametrize(
    "text",
    [
        (
            "Trypsin (EC 3.4.21.4), EC 1.14.13.39, E.C. 1.1.1.1 and EC, 1.13.11.12; EC 1.1.1.1,"
            " 1.1.1.2 and 2.3.1.5."
        ),
        "glycogen synthetase (2.4.1.11), phosphorylase (KF 2.4.1.1), (3.4.21.92)",
        "the lineages B.1.351, B.1.1.28.1 and B.1.1.529.2; lineage 20.1.1.5",
        (
            "See section 8.1.2.1, table 8.8.4.4, sections 8.8.8.8 to 9.9.9.9 and chapters 12.4.1.2"
            " and 13.5.2.2."
        ),
        (
            "software version 9.4.1.3, SPSS 25.0.0.1, SAS 9.4.1.3, v12.0.1.4, MATLAB (9.14.0.22),"
            " Firefox/89.0.1.2, Kapitel 12.4.1.2"
        ),
        "2.16.840.1.113883.6.96 is SNOMED CT; 1.2.840.10008.5.1.4.1.1.2; oid 1.3.6.1.4.1",
        "local 192.168.1.10, 127.0.0.1 and host 10.0.0.1; 256.1.1.1 and 12.5.2021.1",
        (
            "ImageJ 1.53.0.2, Firefox 78.0.1.2; network analysis with Cytoscape 3.8.2.1; a network"
            " of kinases 2.7.11.1"
        ),
        "the immunoglobulin fold (2.60.40.10), host cell protease trypsin 3.4.21.4",
        "100.200.100.200 mg, doses of 100.150.200.250, from 100.150.200.250 IU/kg",
        "at 12:30:45, std::cout, dplyr::add, fe80::1",
    ],
)
def test_numbers_of_four_parts_are_kept(text):
    assert without_ip_addresses(text, "[ip]") == text


@pytest.mark.parametrize(
    ("text", "changed"),
    [
        ("ratio of 8.8.8.8 at", "ratio of [ip] at"),
        ("host 128.178.50.12 and 5.9.110.23", "host [ip] and [ip]"),
        ("the server 1.1.1.1.", "the server [ip]."),
        ("The database is at 140.109.42.8.", "The database is at [ip]."),
        ("a case of misuse from 140.109.42.8", "a case of misuse from [ip]"),
        (
            "see http://93.184.216.34/x or 93.184.216.34:8080, 203.12.55.7/24",
            "see http://[ip]/x or [ip]:8080, [ip]/24",
        ),
        ("::ffff:8.8.8.8, 64:ff9b::8.8.8.8, ::ffff:10.0.0.1", "[ip], [ip], ::ffff:10.0.0.1"),
        ("visited from 193.5.216.100 on Monday", "visited from [ip] on Monday"),
        ("The IPs were 5.6.7.8, 8.8.4.4", "The IPs were [ip], [ip]"),
        ("at 2001:4860:4860::8888, 2a00:1450:4001:81b:0:0:0:200e.", "at [ip], [ip]."),
    ],
)
def test_addresses_are_replaced(text, changed):
    assert without_ip_addresses(text, "[ip]") == changed


@pytest.mark.parametrize(
    "text",
    [
        "Change was +12 345 678 cells; NCT+ 01234567; ISRCTN 12345678; rs+1 234 567 890.",
        "an increase of +48 123 456 789 cells",
        "Δ +10 000 000 reads",
        "gained +123 456 789 dollars",
        "+33 123 456 789 CFU and +33 123 456 789 RBCs",
        "+0.123 456 789",
        "+5 % to +10 %",
        "Na+ 140 135 142",
    ],
)
def test_counts_are_not_telephone_numbers(text):
    assert without_phones(text) == text


@pytest.mark.parametrize(
    "number",
    [
        "+41 44 555 01 23",
        "+1 (617) 555-8364",
        "+44 20 7946 0018",
        "+49 30 1234567",
        "+34 612 345 678",
        "+33.1.42.68.53.00",
        "+41(0)445550123",
        "+886 912 345 678",
    ],
)
def test_telephone_numbers_are_replaced(number):
    assert (
        without_phones(f"Call {number}, or ({number}) at night.")
        == "Call [phone], or ([phone]) at night."
    )


@pytest.mark.parametrize("number", ["+33 123 456 789 FAX", "+33 123 456 789 OR", "+44 7911 123456"])
def test_telephone_numbers_before_capitals_and_in_other_groups(number):
    assert without_phones(f"under {number} reads").startswith("under [phone] ")


@pytest.mark.parametrize(
    ("text", "changed"),
    [
        ("an müller@uni-bonn.de.", "an email@example.com."),
        ("an m.mu\u0308ller@klinik-köln.de,", "an email@example.com,"),
        ("врач@больница.рф", "email@example.com"),
        ("：医生@医院.中国谢谢", "：email@example.com谢谢"),
        ("请联系li.wei@pku.edu.cn。", "请联系email@example.com。"),
        ("é a@b.org, ü@ö.de", "é email@example.com, email@example.com"),
        ("培养@37.培养两天 @医院.中国 é@2.3", "培养@37.培养两天 @医院.中国 é@2.3"),
    ],
)
def test_addresses_in_any_script(text, changed):
    document = Document(text=text, id="1")
    build_step(PiiSettings()).filter(document)
    assert document.text == changed


def test_step():
    document = Document(
        text=(
            "Mail nurse.station@hospital.example.org, host 8.8.8.8; gene@locus, m/z 1@2.3,"
            " hits@10.5, sensitivity@95 %."
        ),
        id="1",
    )
    assert build_step(PiiSettings(phones=True)).filter(document) is True
    assert (
        document.text
        == "Mail email@example.com, host 22.214.171.124; gene@locus, m/z 1@2.3, hits@10.5,"
        " sensitivity@95 %."
    )
    document = Document(text="host 8.8.8.8, a@b.org", id="1")
    assert build_step(PiiSettings(emails=False, ips=False)).filter(document) is True
    assert document.text == "host 8.8.8.8, a@b.org"
