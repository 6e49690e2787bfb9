"""What the command says to expect is computed from rows."""

from taylorir.evaluation.expected import expectation

HEADER = "{},set,image,upscale,psnr_y\n"


def test_gains_are_means_over_sets_of_the_measured_and_the_published_rows(tmp_path):
    (tmp_path / "quality_mini.csv").write_text(
        HEADER.format("run")
        + "net,A,a,4,31.0\nnet,A,b,4,33.0\nnet,B,a,4,21.5\nnet,B,a,2,99.0\nother,A,a,4,99.0\nnet,C,a,4,99.0\n"
    )
    (tmp_path / "bicubic.csv").write_text(
        HEADER.format("model") + "b,A,a,4,30.0\nb,A,b,4,31.0\nb,B,a,4,21.0\nb,B,a,2,1.0\n"
    )
    (tmp_path / "published.csv").write_text(
        "model,set,upscale,psnr_y\nbicubic,A,4,30.0\nbicubic,B,4,20.0\nSwinIR-S,A,4,34.0\nSwinIR-S,B,4,22.0\n"
    )
    # ours: (1 + 2) / 2 = 1.5 on A, 0.5 on B; theirs: 4 on A, 2 on B
    assert expectation("net", 4, tmp_path) == (
        "at x4 this network is 1.00 dB above bicubic (A, B), the published SwinIR-S 3.00 dB; "
        "expect soft detail and steps along slanted edges"
    )
    assert "99" not in expectation("other", 4, tmp_path).partition("above")[2]
    assert expectation("net", 3, tmp_path) is None and expectation("none", 4, tmp_path) is None


def test_a_network_near_the_published_one_is_not_talked_down(tmp_path):
    (tmp_path / "quality_mini.csv").write_text(HEADER.format("run") + "net,A,a,4,33.0\n")
    (tmp_path / "bicubic.csv").write_text(HEADER.format("model") + "bicubic,A,a,4,30.0\n")
    (tmp_path / "published.csv").write_text("model,set,upscale,psnr_y\nbicubic,A,4,30.0\nSwinIR-S,A,4,34.0\n")
    assert expectation("net", 4, tmp_path) == (
        "at x4 this network is 3.00 dB above bicubic (A), the published SwinIR-S 4.00 dB"
    )


def test_without_rows_nothing_is_said(tmp_path):
    assert expectation("net", 4, tmp_path) is None
