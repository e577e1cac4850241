-- purge <selection>: drops dead letters for good.
local function verb()
  local found, after = select_letters()
  local answers = {}
  for nth, each in ipairs(found) do
    answers[nth] = each[1]
    journal_letter('purge', each[1], each[2])
    local topic = drop_letter(each[1], each[2])
    if topic then
      forget_vacant(topic)
    end
  end
  return { 'ok', answers, after }
end
