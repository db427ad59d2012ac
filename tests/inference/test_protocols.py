"""Named protocols: worked by hand and by plain loops on small networks, with their published settings."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perpixel.errors import InvalidValue, RunError
from perpixel.inference import PROTOCOLS, MultiScale, Segmenter, named_protocol
from perpixel.inference.opencv_resize import opencv_resize
from perpixel.inference.published_protocols import DeepLab, Encoding, HRNet, Semseg, TorchSeg
from perpixel.labels import LabelSpace
from perpixel.types import Preprocessing, SegOutput

NUM_CLASSES = 5
LABELS = LabelSpace.numbered(NUM_CLASSES)
MIDDLE = Preprocessing(mean=(0.25, 0.5, 0.75), std=(0.5, 0.25, 2.0))
BLACK = [-0.5, -2.0, -0.375]
GREY = [0.5, 0.0, -0.125]


class RampNetwork(nn.Module):
    """Mixed colours and a ramp across the input: crops, padding and mirroring all show. float64."""

    def __init__(self, *, stride=1, preprocessing=MIDDLE):
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.mix = nn.Parameter(torch.randn(NUM_CLASSES, 3, generator=generator, dtype=torch.float64))
        self.num_classes, self.align_corners, self.margin, self.minimum_size = NUM_CLASSES, True, 0, 1
        self.preprocessing, self.stride = preprocessing, stride
        self.seen: list[Tensor] = []

    def valid_size(self, height, width):
        return height, width

    def forward(self, images):
        self.seen.append(images)
        scores = torch.einsum("kc,bchw->bkhw", self.mix, images)[:, :, :: self.stride, :: self.stride]
        ramp = torch.linspace(-1, 1, scores.shape[-1], dtype=scores.dtype)
        return SegOutput(scores + 0.3 * ramp * torch.arange(NUM_CLASSES)[:, None, None])


def of_image(network, x):
    """Scores at the input's size, with corners aligned."""
    with torch.no_grad():
        return F.interpolate(network(x).logits, size=x.shape[-2:], mode="bilinear", align_corners=True)


def normalized(images, preprocessing=MIDDLE):
    mean, std = (torch.tensor(v, dtype=torch.float64)[:, None, None] for v in (preprocessing.mean, preprocessing.std))
    return (images.double() / 255 - mean) / std


def computed(procedure, network, images):
    return procedure(Segmenter(network, LABELS), images).logits


def padded_end(x, height, width, values):
    canvas = torch.tensor(values, dtype=x.dtype)[None, :, None, None].repeat(len(x), 1, height, width)
    canvas[..., : x.shape[-2], : x.shape[-1]] = x
    return canvas


def with_mirror(network, x):
    return of_image(network, x), of_image(network, x.flip(-1)).flip(-1)


def test_deeplab_pads_with_grey_scales_with_aligned_corners_and_averages_softmaxes(raw_images):
    images, network = raw_images(2, 3, 7, 10), RampNetwork(stride=2)
    ours = computed(DeepLab(scales=(0.5, 1.0, 1.5), crop=(9, 13)), network, images)
    x = padded_end(normalized(images), 9, 13, GREY)
    total = torch.zeros(2, NUM_CLASSES, 9, 13, dtype=torch.float64)
    for size in ((5, 7), (9, 13), (13, 19)):  # (9 - 1) s + 1, (13 - 1) s + 1
        view = F.interpolate(x, size=size, mode="bilinear", align_corners=True)
        for mirror in (False, True):
            scores = network(view.flip(-1) if mirror else view).logits.detach()
            scores = F.interpolate(scores.flip(-1) if mirror else scores, (9, 13), mode="bilinear", align_corners=True)
            total += scores.softmax(1) / 6
    torch.testing.assert_close(ours, total[..., :7, :10])


def test_deeplab_one_pixel_worked_by_hand():
    network = RampNetwork(preprocessing=Preprocessing(mean=(0.0,) * 3, std=(1.0,) * 3))
    network.mix.data.zero_()
    network.mix.data[1, 0] = math.log(3)
    image = torch.zeros(1, 3, 1, 1, dtype=torch.uint8)
    image[0, 0] = 255
    ours = computed(DeepLab(scales=(1.0,), crop=1, flip=False), network, image)
    # The ramp of one pixel is -1: odds of 3 exp(-0.3) for class 1 and exp(-0.3 k) for the others.
    odds = [math.exp(-0.3 * k) * (3 if k == 1 else 1) for k in range(NUM_CLASSES)]
    assert ours.flatten().tolist() == pytest.approx([value / sum(odds) for value in odds])


def test_deeplab_aligns_corners_of_padded_views_whatever_the_network_says(fake_network, raw_images):
    # At scale 3/4 the view has 5 pixels a side, which this network pads to 8.
    both = [
        computed(DeepLab(scales=(0.75, 1.0), crop=7), network, raw_images(1, 3, 7, 7))
        for network in (fake_network(NUM_CLASSES, stride=2, multiple=4, align_corners=aligned) for aligned in (0, 1))
    ]
    torch.testing.assert_close(both[0], both[1])


def test_deeplab_larger_image_than_the_crop_stays_whole(raw_images):
    network = RampNetwork()
    assert computed(DeepLab(scales=(1.0,), crop=4), network, raw_images(1, 3, 6, 9)).shape == (1, NUM_CLASSES, 6, 9)
    assert all(seen.shape[-2:] == (6, 9) for seen in network.seen)


def hrnet_loops(network, images, *, base, crop, scales):
    """The protocol elsewhere than on Cityscapes, window by window, for images that are wider than high."""
    height, width = images.shape[-2:]
    x, stride = normalized(images), int(crop * 2 / 3)
    total = torch.zeros(1, NUM_CLASSES, height, width, dtype=torch.float64)
    for scale in scales:
        long = int(base * scale + 0.5)
        h, w = int(height * long / width + 0.5), long
        view = opencv_resize(x, (h, w))
        high, wide = max(h, crop), max(w, crop)
        view = padded_end(view, high, wide, BLACK)
        sums, counts = torch.zeros(1, NUM_CLASSES, high, wide, dtype=torch.float64), torch.zeros(high, wide)
        for row in range(math.ceil((high - crop) / stride) + 1):
            for column in range(math.ceil((wide - crop) / stride) + 1):
                part = view[..., row * stride :, column * stride :][..., :crop, :crop]
                h1, w1 = part.shape[-2:]
                a, b = with_mirror(network, padded_end(part, crop, crop, BLACK))
                window = (slice(row * stride, row * stride + h1), slice(column * stride, column * stride + w1))
                sums[:, :, window[0], window[1]] += ((a + b) / 2).exp()[..., :h1, :w1]
                counts[window] += 1
        scores = (sums / counts)[..., :h, :w]
        total += F.interpolate(scores, (height, width), mode="bilinear", align_corners=False)
    return total


def test_hrnet_pads_the_last_window_and_sums_exponentials(raw_images):
    images, network = raw_images(1, 3, 13, 18), RampNetwork(stride=2)
    procedure = HRNet(base_size=20, crop=9, scales=(0.35, 0.5, 1.0, 1.5))
    expected = hrnet_loops(network, images, base=20, crop=9, scales=(0.35, 0.5, 1.0, 1.5))
    torch.testing.assert_close(computed(procedure, network, images), expected)


def test_hrnet_on_cityscapes_runs_small_scales_whole_and_large_ones_in_windows(raw_images):
    images, network = raw_images(1, 3, 8, 16), RampNetwork()
    procedure = HRNet(base_size=16, crop=(5, 8), stride_rate=1.0, whole_up_to=1.0, scales=(1.0, 1.25))
    ours = computed(procedure, network, images)
    assert [tuple(seen.shape[-2:]) for seen in network.seen] == [(8, 16), (5, 8), (5, 8)]
    x = normalized(images)
    expected = torch.stack(with_mirror(network, x)).mean(0).exp()
    view = opencv_resize(x, (10, 20))
    sums, counts = torch.zeros(1, NUM_CLASSES, 10, 20, dtype=torch.float64), torch.zeros(10, 20)
    for top in (0, 5):
        for left in (0, 8, 12):  # the last one is shifted back from 16
            part = view[..., top : top + 5, left : left + 8]
            sums[..., top : top + 5, left : left + 8] += torch.stack(with_mirror(network, part)).mean(0).exp()
            counts[top : top + 5, left : left + 8] += 1
    expected += F.interpolate(sums / counts, (8, 16), mode="bilinear", align_corners=False)
    torch.testing.assert_close(ours, expected)


def test_hrnet_on_cityscapes_window_larger_than_the_image_is_cut(raw_images):
    images, network = raw_images(1, 3, 8, 16), RampNetwork()
    procedure = HRNet(base_size=16, crop=(64, 8), stride_rate=1.0, whole_up_to=0.5, scales=(1.0,), flip=False)
    computed(procedure, network, images)
    assert [tuple(seen.shape[-2:]) for seen in network.seen] == [(8, 8)]


def test_cityscapes_whole_is_the_whole_image_once(fake_network, raw_images):
    network, images = fake_network(NUM_CLASSES, stride=4), raw_images(1, 3, 16, 32)
    procedure = named_protocol("cityscapes-whole")
    assert torch.equal(
        Segmenter(network, LABELS, procedure=procedure).logits(images), Segmenter(network, LABELS).logits(images)
    )


def test_cityscapes_whole_with_more_views_averages_softmaxes_of_whole_views(raw_images):
    images, network = raw_images(1, 3, 4, 8), RampNetwork()
    ours = computed(named_protocol("cityscapes-whole", scales=(1.0, 2.0), flip=True), network, images)
    x = normalized(images).float()
    views = []
    for view in (x, F.interpolate(x, size=(8, 16), mode="bilinear", align_corners=False, antialias=True)):
        for mirror in (False, True):
            scores = network((view.flip(-1) if mirror else view).double()).logits.detach()
            scores = scores.flip(-1) if mirror else scores
            views.append(F.interpolate(scores, (4, 8), mode="bilinear", align_corners=True).softmax(1))
    torch.testing.assert_close(ours, torch.stack(views).mean(0), atol=1e-6, rtol=1e-6)


def test_torchseg_small_image_is_centred_on_zeros_and_mirrored_views_multiply(raw_images):
    images, network = raw_images(1, 3, 4, 7), RampNetwork()
    ours = computed(TorchSeg(crop=10, scales=(1.0,), flip=True), network, images)
    x = torch.zeros(1, 3, 10, 10)
    x[..., 3:7, 1:8] = normalized(images).float()  # 6 // 2 above, 3 // 2 on the left
    a, b = with_mirror(network, x.double())
    torch.testing.assert_close(ours, (a.log_softmax(1) + b.log_softmax(1)).exp()[..., 3:7, 1:8], atol=1e-6, rtol=1e-6)


def test_torchseg_windows_are_summed_over_raw_black_padding(raw_images):
    images, network = raw_images(1, 3, 4, 14), RampNetwork()
    ours = computed(TorchSeg(crop=8, scales=(1.0,), flip=False), network, images)
    x = torch.tensor(BLACK)[None, :, None, None].repeat(1, 1, 8, 14)
    x[..., 2:6, :] = normalized(images).float()
    total = torch.zeros(1, NUM_CLASSES, 8, 14, dtype=torch.float64)
    for left in (0, 6):  # a stride of ceil(16 / 3); 2 pixels are seen twice and count twice
        total[..., left : left + 8] += of_image(network, x[..., left : left + 8].double()).softmax(1)
    torch.testing.assert_close(ours, total[..., 2:6, :].double(), atol=1e-6, rtol=1e-6)
    assert ours.sum(1)[0, 0].tolist() == pytest.approx([1] * 6 + [2] * 2 + [1] * 6, abs=1e-5)


def test_semseg_pads_with_the_mean_and_averages(raw_images):
    images, network = raw_images(1, 3, 6, 4), RampNetwork()
    ours = computed(Semseg(base_size=6, crop=(6, 9), scales=(1.0,)), network, images)
    x = torch.zeros(1, 3, 6, 9, dtype=torch.float64)
    x[..., 2:6] = normalized(images)
    a, b = with_mirror(network, x)
    torch.testing.assert_close(ours, ((a.softmax(1) + b.softmax(1)) / 2)[..., 2:6], atol=1e-6, rtol=1e-6)


def test_encoding_pads_black_and_adds_exponentials_of_added_scores(raw_images):
    images, network = raw_images(1, 3, 5, 4), RampNetwork()
    ours = computed(Encoding(base_size=5, crop=7, scales=(1.0,)), network, images)
    a, b = with_mirror(network, padded_end(normalized(images), 7, 7, BLACK))
    torch.testing.assert_close(ours, (a + b).exp()[..., :5, :4])


@pytest.mark.parametrize("name", PROTOCOLS)
@pytest.mark.parametrize("size", [(9, 14), (14, 9), (1, 1)])
def test_protocol_of_any_image_has_finite_scores_of_its_size(fake_network, raw_images, name, size):
    procedure = named_protocol(name, scales=(0.75, 1.0), window=None if name == "cityscapes-whole" else 16)
    if hasattr(procedure, "base_size"):
        procedure = type(procedure)(base_size=16, crop=12, scales=(0.75, 1.0))
    segmenter = Segmenter(fake_network(NUM_CLASSES, stride=4), LABELS, procedure=procedure)
    images = raw_images(2, 3, *size)
    scores = segmenter.logits(images)
    assert scores.shape == (2, NUM_CLASSES, *size)
    assert scores.dtype == torch.float32
    assert torch.equal(scores.argmax(1), segmenter.classes(images).long())


@pytest.mark.parametrize("kind", [TorchSeg, Semseg, Encoding, HRNet])
def test_protocol_batch_size_of_windows_changes_nothing(raw_images, kind):
    images, network = raw_images(1, 3, 11, 17), RampNetwork(stride=2)
    sizes = {} if kind is TorchSeg else {"base_size": 20}
    one, many = (computed(kind(crop=8, scales=(0.5, 1.0), batch_size=n, **sizes), network, images) for n in (1, 5))
    torch.testing.assert_close(one, many, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("kind", [TorchSeg, Semseg])
def test_protocol_16_bit_image_gives_what_its_8_bit_one_gives(raw_images, kind):
    images, network = raw_images(1, 3, 8, 8), RampNetwork()
    sizes = {} if kind is TorchSeg else {"base_size": 8}
    eight, sixteen = (
        computed(kind(crop=8, scales=(1.0,), **sizes), network, given) for given in (images, images.int() * 257)
    )
    torch.testing.assert_close(eight, sixteen, atol=1e-5, rtol=1e-5)


def test_protocol_network_of_bgr_order_sees_bgr(raw_images):
    given = Preprocessing(mean=(0.75, 0.5, 0.25), std=(2.0, 0.25, 0.5), channel_order="bgr", value_range=1.0)
    images = raw_images(1, 3, 8, 8)
    for kind in (TorchSeg, Semseg, Encoding, HRNet):
        network, other = RampNetwork(), RampNetwork(preprocessing=given)
        other.mix.data = network.mix.data.flip(1)
        sizes = {} if kind is TorchSeg else {"base_size": 8}
        procedure = kind(crop=8, scales=(1.0,), **sizes)
        torch.testing.assert_close(computed(procedure, network, images), computed(procedure, other, images))


def test_protocol_exponentials_that_overflow_refused(raw_images):
    network = RampNetwork().float()
    network.mix.data *= 1e4
    with pytest.raises(RunError, match="scores that are not finite"):
        Segmenter(network, LABELS, procedure=Encoding(base_size=8, crop=8)).classes(raw_images(1, 3, 8, 8))


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("torchseg", None, TorchSeg(crop=512)),
        ("torchseg", "cityscapes", TorchSeg(crop=800)),
        ("semseg", "cityscapes", Semseg(base_size=2048, crop=713)),
        ("encoding", None, Encoding(base_size=520, crop=480)),
        ("deeplab", None, DeepLab(crop=513)),
        ("deeplab", "cityscapes", DeepLab(crop=(1025, 2049), scales=(0.75, 1.0, 1.25))),
        ("hrnet", None, HRNet(base_size=2048, crop=(512, 1024), stride_rate=1.0, whole_up_to=1.0)),
        ("hrnet", "ade20k150", HRNet(scales=(0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0))),
        ("cityscapes-whole", None, MultiScale(scales=(1.0,), flip=False)),
    ],
)
def test_named_protocol_has_the_published_settings(name, data, expected):
    assert named_protocol(name, data=data) == expected


def test_named_protocol_settings_can_be_changed():
    assert named_protocol("semseg", scales=[1], flip=False, window=321) == Semseg(crop=321, scales=(1.0,), flip=False)


def test_named_protocol_published_scales_of_every_entry_are_usable():
    for name, entry in PROTOCOLS.items():
        for data in entry.data:
            assert np.all(np.array(named_protocol(name, data=data).scales) > 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("torchsegg",), "no protocol 'torchsegg'; did you mean 'torchseg'\\?.*scales and flip alone need none"),
        (("mmseg", None, ()), "no protocol 'mmseg'.*Protocols: torchseg, semseg, encoding, deeplab, hrnet"),
        (("semseg", "camvid"), "no published settings for 'camvid'.*there are some for voc, ade20k150, cityscapes"),
        (("semseg", None, ()), "there are no scales"),
        (("cityscapes-whole", None, None, None, 512), "runs images whole, so a tile of 512 does not go with it"),
        (("torchseg", None, None, None, (512, 640)), "a square of one number of pixels >= 1, got \\(512, 640\\)"),
        (("encoding", None, None, None, 1), "a crop of 1 pixels with a stride rate of 0.66.* has a stride of 0"),
        (("semseg", None, None, None, 0), "the crop is one number of pixels >= 1"),
    ],
)
def test_named_protocol_that_cannot_be_refused_with_the_way_out(arguments, message):
    names = ("name", "data", "scales", "flip", "window")
    given = dict(zip(names, arguments, strict=False))
    with pytest.raises(InvalidValue, match=message):
        named_protocol(given.pop("name"), **given)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (TorchSeg, {"stride_rate": 0.0}, "the stride rate is a share of the crop in \\(0, 1\\], got 0.0"),
        (Semseg, {"stride_rate": 1.5}, "the stride rate is a share of the crop in \\(0, 1\\], got 1.5"),
        (Semseg, {"base_size": 0}, "the base size is one number of pixels >= 1"),
        (HRNet, {"batch_size": 0}, "the batch size of windows is at least 1, got 0"),
        (DeepLab, {"scales": (-1.0,)}, "scales are positive numbers, got -1.0"),
    ],
)
def test_protocol_settings_that_make_no_sense_refused(kind, settings, message):
    with pytest.raises(InvalidValue, match=message):
        kind(**settings)


def test_protocol_scale_that_leaves_no_pixel_refused(raw_images):
    with pytest.raises(InvalidValue, match=r"at scale 0\.01 the image would have 0 x 0 pixels; use larger scales"):
        computed(Semseg(base_size=8, crop=8, scales=(0.01,)), RampNetwork(), raw_images(1, 3, 8, 8))
