"""Zero-shot balanced accuracy of a CLIP on generated photographs of every site, with one prompt.

Every site shows as many pictures of each class of its referral, drawn from a seed that no training uses; the mean
over the classes' sensitivities is taken over those it has.

    python benchmarks/zero_shot.py --pictures 60 --seed 2002
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from monai_fedlora.files import sha256, write_json

RESULTS = Path(__file__).parent / "results"
PROMPT = "a photo of {class}"


def measure(
    weights: str, size: str, kind_name: str, pictures: int, seed: int, prompt: str
) -> dict[str, dict[str, float]]:
    """Balanced accuracy and the chance level of each camera."""
    import torch

    from monai_fedlora.data.photo_phantom.captions import CLASS_NAMES
    from monai_fedlora.data.photo_phantom.photo_kinds import KINDS
    from monai_fedlora.engines.config import preprocessing
    from monai_fedlora.networks.anchors import text_anchors
    from monai_fedlora.networks.catalogue import build_backbone
    from monai_fedlora.networks.prompts import Prompts
    from monai_fedlora.networks.text_head import CosineHead, put_head
    from monai_fedlora.networks.weights import load_backbone

    kind = KINDS[kind_name]
    prompts = Prompts(templates=(prompt,), class_texts={name: CLASS_NAMES[name][0] for name in kind.demo})
    network = build_backbone(size, out_chans=len(kind.demo)).eval()
    load_backbone(network, weights)
    put_head(network, CosineHead.of(text_anchors(weights, size=size, classes=kind.demo, prompts=prompts)))
    prepare = preprocessing(size=size, style=kind_name)
    found = {}
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        path = Path(folder) / "picture.jpg"
        for code, camera in kind.cameras.items():
            hits = []
            for label, group in enumerate(kind.demo):
                if not camera.shares[group]:
                    continue
                images = []
                for number in range(pictures):
                    path.write_bytes(
                        kind.file(group, camera, (seed, ord(code), label, number), shot=0, size=120, suffix=".jpg")
                    )
                    images.append(prepare({"image": str(path)})["image"])
                hits.append(float((network(torch.stack(images)).argmax(1) == label).float().mean()))
            found[code] = {"balanced_accuracy": sum(hits) / len(hits), "classes": len(hits)}
    return found


def main() -> None:
    """Measure every site of both kinds."""
    from monai_fedlora.networks.catalogue import demo_weights

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", default=None, help="a checkpoint (default: the packaged one)")
    parser.add_argument("--size", default="clip_demo")
    parser.add_argument("--pictures", type=int, default=60, help="of each class and site")
    parser.add_argument("--seed", type=int, default=2002)
    parser.add_argument("--prompt", default=PROMPT)
    parser.add_argument("--output", type=Path, default=RESULTS / "zero_shot_clip_demo.json")
    args = parser.parse_args()
    weights = args.weights or str(demo_weights(args.size))
    result = {"weights_sha256": sha256(weights), "prompt": args.prompt, "pictures": args.pictures, "seed": args.seed}
    sites = {
        kind: measure(weights, args.size, kind, args.pictures, args.seed, args.prompt)
        for kind in ("dermoscopy", "fundus")
    }
    write_json(args.output, result | sites)
    for kind, cameras in sites.items():
        print(kind, *(f"{code} {values['balanced_accuracy']:.2f}" for code, values in cameras.items()))


if __name__ == "__main__":
    main()
