import KitText

/// What a model says of a text.
enum Answer {
    /// Labels that hold, none where the model is too unsure, and the score of each label.
    case labels([String], scores: [String: Float])
    case spans([Span])
    /// A vector whose product with another text's is their likeness.
    case vector([Float])
}

/// A loaded model. Not for several threads at a time.
protocol Answerer {
    func answer(_ text: String) throws -> Answer
}

/// Load what answers for the artifact's task, with the library that the app was built with.
func openModel(_ artifact: Artifact) throws -> Answerer {
    let task = artifact.manifest.task
    switch task {
    case "classify", "multilabel":
        #if canImport(MediaPipeTasksText)
        return try Classifier(artifact)
        #else
        throw ArtifactError("The task \(task) needs the pod MediaPipeTasksText: choose it in the Podfile.")
        #endif
    case "tag", "embed":
        #if canImport(TensorFlowLite)
        return task == "tag" ? try Tagger(artifact) : try Embedder(artifact)
        #else
        throw ArtifactError("The task \(task) needs the pod TensorFlowLiteSwift: choose it in the Podfile.")
        #endif
    default:
        throw ArtifactError("The model's task is \(task). This app knows classify, multilabel, tag and embed.")
    }
}
