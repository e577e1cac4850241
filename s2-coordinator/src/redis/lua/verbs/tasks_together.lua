-- tasks_together <n> <field>* <n> (<verb> <count> <argument>*)*: calls that share a step, as if one came after the other. The fields
-- are read ahead. Answers with what each says; those for which the step would become too long are to be called again, alone.
local function verb()
  local all, fields, answers = ARGV, {}, {}
  local place = 6 + tonumber(all[5])
  for nth = 6, place - 1 do
    fields[#fields + 1] = all[nth]
  end
  open(fields)
  local count = tonumber(all[place])
  for nth = 1, count do
    local args = tonumber(all[place + 2])
    to_ask = count - nth
    if units > 0 and handed < STEP_BYTES then
      ARGV = { all[1], all[2], all[3], all[4], unpack(all, place + 3, place + 2 + args) }
      answers[nth] = tasks.verbs[all[place + 1]]()
      follow()
    else
      answers[nth] = { 'again' }
    end
    place = place + 2 + args
  end
  ARGV = all
  return { 'ok', answers, all = answers }
end
