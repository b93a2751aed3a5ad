#if canImport(MediaPipeTasksText)
import KitText
import MediaPipeTasksText

/// Labels of a text, from MediaPipe's TextClassifier: vocabulary and labels are in the file.
final class Classifier: Answerer {
    private let artifact: Artifact
    // Its own tokenizer keeps accents and looks at ASCII's capitals only: texts are folded before.
    private let reader: SymbolReader
    private let classifier: TextClassifier

    init(_ artifact: Artifact) throws {
        self.artifact = artifact
        reader = SymbolReader(settings: artifact.settings)
        let options = TextClassifierOptions()
        options.baseOptions.modelAssetPath = artifact.file
        classifier = try TextClassifier(options: options)
    }

    func answer(_ text: String) throws -> Answer {
        let result = try classifier.classify(text: reader.fold(text)).classificationResult
        let categories = result.classifications.first?.categories ?? []
        let scores = Dictionary(categories.map { ($0.categoryName ?? "", $0.score) }, uniquingKeysWith: { $1 })
        if artifact.manifest.task == "multilabel" {
            return .labels(overThreshold(scores, thresholds: artifact.thresholds), scores: scores)
        }
        let best = likeliest(scores, abstainBelow: artifact.manifest.options.abstainBelow ?? 0)
        return .labels(best.map { [$0] } ?? [], scores: scores)
    }
}
#endif
